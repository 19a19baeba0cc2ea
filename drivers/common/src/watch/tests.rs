//! Real files, real folders.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use super::*;

/// Long enough for whatever is to come.
const WAIT: Duration = Duration::from_secs(20);

struct Site {
    folder: PathBuf,
    loaded: Contents,
    watch: Watch,
    changed: Receiver<()>,
}

impl Site {
    /// With these files, each `name=content`, of which those at `paths` are watched.
    fn new(name: &str, files: &[&str], paths: &[&str], folders: Folders, poll: Duration) -> Self {
        let folder = std::env::temp_dir().join(format!("rust-strom-watch-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder");
        let (to, changed) = mpsc::channel();
        let watch = Watch::start_with(folders, poll, move || _ = to.send(())).expect("a thread");
        let mut site = Self { folder, loaded: Contents::default(), watch, changed };
        for file in files {
            let (name, content) = file.split_once('=').expect("name=content");
            site.put(name, content);
        }
        site.load(paths);
        site
    }

    fn events(name: &str, files: &[&str], paths: &[&str]) -> Self {
        Self::new(name, files, paths, Folders::new(), POLL)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn put(&self, name: &str, content: &str) {
        let path = self.at(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, content).expect("written");
    }

    fn load(&mut self, paths: &[&str]) {
        self.loaded = Contents::default();
        paths.iter().for_each(|path| self.loaded.add(&self.folder.join(path)));
        self.loaded.settle();
        self.watch.follow(Some(self.loaded.clone()));
    }

    /// Waits until the watcher says that something has changed, and loads it.
    fn expect_change(&mut self, paths: &[&str]) {
        self.changed.recv_timeout(WAIT).expect("a change that is seen");
        assert!(self.loaded.difference().is_some(), "it has changed");
        self.load(paths);
        // What it has said twice is known by now.
        while self.changed.try_recv().is_ok() {}
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn every_way_of_editing_is_seen() {
    const PATHS: &[&str] = &["a/config", "a/b/key"];
    let mut site = Site::events("edit", &["a/config=1", "a/b/key=1"], PATHS);
    site.put("a/config", "2");
    site.expect_change(PATHS);
    site.put("a/config.new", "3");
    fs::rename(site.at("a/config.new"), site.at("a/config")).expect("renamed");
    site.expect_change(PATHS);
    fs::remove_file(site.at("a/config")).expect("removed");
    site.expect_change(PATHS);
    site.put("a/config", "3");
    site.expect_change(PATHS);
    // A folder on the way goes, and comes again.
    fs::remove_dir_all(site.at("a/b")).expect("removed");
    site.expect_change(PATHS);
    site.put("a/b/key", "2");
    site.expect_change(PATHS);
    fs::rename(site.at("a"), site.at("old")).expect("renamed");
    site.expect_change(PATHS);
    site.put("new/config", "4");
    site.put("new/b/key", "4");
    fs::rename(site.at("new"), site.at("a")).expect("renamed");
    site.expect_change(PATHS);
    site.put("a/b/key", "5");
    site.expect_change(PATHS);
}

#[test]
fn links_are_followed() {
    const PATHS: &[&str] = &["mount/tls.crt", "mount/tls.key"];
    let mut site = Site::events("links", &["mount/..1/tls.crt=1", "mount/..1/tls.key=1"], &[]);
    symlink("..1", site.at("mount/..data")).expect("a link");
    for name in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{name}"), site.at("mount").join(name)).expect("a link");
    }
    site.load(PATHS);
    for n in 2..5 {
        // As the kubelet does it: another folder, another link in the place of the one before, no more.
        site.put(&format!("mount/..{n}/tls.crt"), &n.to_string());
        site.put(&format!("mount/..{n}/tls.key"), &n.to_string());
        symlink(format!("..{n}"), site.at("mount/..data_tmp")).expect("a link");
        fs::rename(site.at("mount/..data_tmp"), site.at("mount/..data")).expect("renamed");
        fs::remove_dir_all(site.at(&format!("mount/..{}", n - 1))).expect("removed");
        site.expect_change(PATHS);
    }
}

#[test]
fn what_does_not_change_contents_is_not_told() {
    let mut site = Site::events("same", &["config=1", "other=1"], &["config"]);
    // Written, replaced and touched, with the same content at the end; and what nobody watches.
    for _ in 0..3 {
        site.put("config", "2");
        site.put("config", "1");
        site.put("config.new", "1");
        fs::rename(site.at("config.new"), site.at("config")).expect("renamed");
        site.put("other", "2");
        assert!(site.changed.recv_timeout(pace::QUIET * 3).is_err());
    }
    // It was watched all the time.
    site.put("config", "3");
    site.expect_change(&["config"]);
    site.watch.follow(None);
    site.put("config", "4");
    assert!(site.changed.recv_timeout(pace::QUIET * 3).is_err(), "it watches nothing");
}

#[test]
fn without_events_it_looks_regularly() {
    let poll = Duration::from_millis(50);
    let mut site = Site::new("poll", &["config=1"], &["config"], Folders::without_events(), poll);
    for n in 2..4 {
        site.put("config", &n.to_string());
        site.expect_change(&["config"]);
    }
    fs::remove_file(site.at("config")).expect("removed");
    site.expect_change(&["config"]);
    assert!(site.changed.recv_timeout(poll * 4).is_err(), "once for each content");
}

#[test]
fn what_changes_while_it_is_loaded_is_loaded_again() {
    let mut site = Site::events("meanwhile", &["config=1"], &[]);
    let mut loaded = Contents::default();
    loaded.add(&site.at("config"));
    site.put("config", "other");
    let text = fs::read(site.at("config")).expect("read");
    // What was loaded is not there any more, and what is there was there before.
    assert_eq!(text, b"other");
    site.put("config", "1");
    loaded.settle();
    site.loaded = loaded.clone();
    site.watch.follow(Some(loaded));
    site.expect_change(&["config"]);
    assert!(site.changed.recv_timeout(pace::QUIET * 3).is_err());
}

#[test]
fn pipes_are_not_read() {
    let site = Site::events("pipe", &["config=1"], &[]);
    let made = std::process::Command::new("mkfifo").arg(site.at("pipe")).status().expect("mkfifo");
    assert!(made.success());
    let mut contents = Contents::default();
    contents.add(&site.at("pipe"));
    contents.settle();
    assert_eq!(contents.difference(), None);
}

#[test]
fn a_dropped_watch_ends_its_thread() {
    let (to, ended) = mpsc::channel::<()>();
    let watch = Watch::start(move || _ = to.send(())).expect("a thread");
    drop(watch);
    assert_eq!(ended.recv_timeout(WAIT), Err(mpsc::RecvTimeoutError::Disconnected));
}
