//! Files that change are read again without being asked for, in whatever way they are changed.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::address::reserve;
use crate::authority::{Authority, Pair};
use crate::changes::over_tls;
use crate::client::Client;
use crate::daemon::{Daemon, TempDir};
use crate::scripted_backend::Backend;
use crate::site::{ask, nth_reload, reload, reloads, start};

on_each_driver!(
    ways_of_editing,
    a_bad_file_is_refused_once,
    a_pipe_is_not_waited_for,
    pages_and_users,
    certificates_as_kubernetes_mounts_them,
    it_can_be_turned_off,
);

/// Longer than files have to be quiet.
const LONG: Duration = Duration::from_millis(700);

fn config(http: SocketAddr, backend: &Backend, more: &str) -> String {
    format!(
        "http_address = \"{http}\"\nmetrics_address = false\nhealth_interval = {{ check_every = 0 }}\n\
         [[backend_pools]]\nname = \"web\"\naddresses = [\"{}\"]\n{more}",
        backend.address
    )
}

/// What came of reloads, one after the other, without the times.
struct Story<'d> {
    daemon: &'d Daemon,
    told: usize,
}

impl Story<'_> {
    fn of(daemon: &Daemon) -> Story<'_> {
        Story { daemon, told: 0 }
    }

    /// The next is this one.
    fn expect(&mut self, part: &str) {
        let line = nth_reload(self.daemon, self.told);
        assert!(line.contains(part), "{part}: {}", self.daemon.output());
        self.told += 1;
    }

    /// There is no other one.
    fn expect_nothing(&self) {
        std::thread::sleep(LONG);
        assert_eq!(reloads(self.daemon).len(), self.told, "{}", self.daemon.output());
    }
}

fn rename(from: &Path, to: &Path) {
    fs::rename(from, to).expect("renamed");
}

fn ways_of_editing(driver: &str) {
    let one = Backend::good("one");
    let http = reserve();
    let text = |retries: usize| config(http, &one, &format!("retries = {retries}\n"));
    let daemon = start(driver, &text(1));
    let (mut story, folder) = (Story::of(&daemon), &daemon.directory);
    let (file, other) = (folder.0.join("config.toml"), folder.0.join("config.new"));
    folder.write("config.toml", text(2));
    story.expect("pools: ~web (retries)");
    folder.write("config.new", text(3));
    rename(&other, &file);
    story.expect("pools: ~web (retries)");
    // In halves: the first says something else, but nobody reads it so soon.
    let whole = text(4);
    let half = whole.find("retries").expect("there");
    folder.write("config.toml", &whole[..half]);
    std::thread::sleep(Duration::from_millis(20));
    folder.write("config.toml", &whole);
    story.expect("pools: ~web (retries)");
    // Moved away, and written anew at once, as some editors do.
    rename(&file, &other);
    folder.write("config.toml", text(5));
    story.expect("pools: ~web (retries)");
    // Gone for longer: that is said once, and what was served is served on.
    fs::remove_file(&file).expect("removed");
    story.expect("not reloaded, what was served is served on: cannot read");
    assert_eq!(Client::to(http).get("/").expect("a response").text(), "one");
    folder.write("config.toml", text(6));
    story.expect("pools: ~web (retries)");
    // The same again, written and replaced, is nothing new; nor is what HUP has had read already.
    folder.write("config.toml", text(6));
    folder.write("config.new", text(6));
    rename(&other, &file);
    story.expect_nothing();
    assert!(reload(&daemon, &text(7)).contains("pools: ~web (retries)"));
    story.told += 1;
    story.expect_nothing();
    daemon.stop();
}

fn a_bad_file_is_refused_once(driver: &str) {
    let one = Backend::good("one");
    let http = reserve();
    let daemon = start(driver, &config(http, &one, ""));
    let (mut story, folder) = (Story::of(&daemon), &daemon.directory);
    folder.write("config.toml", config(http, &one, "strategy = \"Fastest\"\nretries = -1\n"));
    story.expect("not reloaded");
    for said in ["unknown strategy", "retries"] {
        daemon.wait_for(said);
    }
    story.expect_nothing();
    // A file that it names is missing, and then comes.
    let pages = "[backend_pools.middlewares.CustomErrorPages]\n\"404\" = \"pages/404.html\"\n";
    folder.write("config.toml", config(http, &one, pages));
    story.expect("not reloaded");
    fs::create_dir(folder.0.join("pages")).expect("made");
    folder.write("pages/404.html", "gone");
    story.expect("pools: ~web (middlewares)");
    folder.write("config.toml", "nonsense");
    story.expect("not reloaded");
    assert_eq!(Client::to(http).get("/").expect("a response").text(), "one");
    folder.write("config.toml", config(http, &one, pages));
    story.expect("it says the same");
    daemon.stop();
}

/// Lists in which the only user of each is `ada`, with another password.
const USERS: [&str; 3] = ["first", "second", "third"];

/// What openssl makes of a password for crypt(3), quickly.
fn hash(password: &str) -> String {
    let made = Command::new("openssl").args(["passwd", "-6", password]).output().expect("openssl");
    String::from_utf8(made.stdout).expect("text").trim_end().to_owned()
}

/// A pipe may never have a writer: nothing is read from one, and what comes after it is.
fn a_pipe_is_not_waited_for(driver: &str) {
    let one = Backend::good("one");
    let http = reserve();
    let daemon = start(driver, &config(http, &one, ""));
    let file = daemon.directory.0.join("config.toml");
    fs::remove_file(&file).expect("there");
    let made = Command::new("mkfifo").arg(&file).status().expect("coreutils");
    assert!(made.success());
    let line = ask(&daemon);
    assert!(line.contains("no regular file"), "{line}");
    fs::remove_file(&file).expect("there");
    let line = reload(&daemon, &config(http, &one, "retries = 3\n"));
    assert!(line.contains("~web (retries)"), "{line}");
    assert_eq!(Client::to(http).get("/").expect("a response").text(), "one");
    daemon.stop();
}

fn pages_and_users(driver: &str) {
    // `ada` with each of the passwords.
    let credentials = ["YWRhOmZpcnN0", "YWRhOnNlY29uZA==", "YWRhOnRoaXJk"];
    let one = Backend::good("one");
    let http = reserve();
    let daemon = start(driver, &config(http, &one, ""));
    let (mut story, folder) = (Story::of(&daemon), &daemon.directory);
    let files = TempDir::new("named");
    let inner = files.0.join("inner");
    let put = |name: &str, content: &str| {
        fs::create_dir_all(&inner).expect("made");
        fs::write(inner.join(name), content).expect("written");
    };
    let put_users = |nth: usize| put("users", &format!("ada:{}\n", hash(USERS[nth])));
    put("401.txt", "who?");
    put_users(0);
    let path = inner.display();
    let chain = format!(
        "[backend_pools.middlewares.CustomErrorPages]\n\"401\" = \"{path}/401.txt\"\n\
         [backend_pools.middlewares.BasicAuth]\nusers_file = \"{path}/users\"\n"
    );
    folder.write("config.toml", config(http, &one, &chain));
    story.expect("pools: ~web (middlewares)");
    let get = |nth: usize| {
        let mut client = Client::to(http);
        let credentials = credentials[nth];
        client
            .send(format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic {credentials}\r\n\r\n"))
            .expect("sent");
        let response = client.response(false).expect("a response");
        (response.status, response.text())
    };
    let becomes = |nth: usize, status: u16, text: &str| {
        let begun = std::time::Instant::now();
        while get(nth) != (status, text.to_owned()) {
            assert!(begun.elapsed() < crate::client::WAIT, "{:?}: {}", get(nth), daemon.output());
        }
    };
    becomes(0, 200, "one");
    becomes(1, 401, "who?");
    put_users(1);
    story.expect("pools: ~web (middlewares)");
    becomes(1, 200, "one");
    becomes(0, 401, "who?");
    put("401.txt", "who are you?");
    story.expect("pools: ~web (middlewares)");
    becomes(0, 401, "who are you?");
    // The whole folder goes, and comes again.
    fs::remove_dir_all(&inner).expect("removed");
    story.expect("not reloaded");
    becomes(1, 200, "one");
    put_users(2);
    put("401.txt", "nobody");
    becomes(2, 200, "one");
    becomes(1, 401, "nobody");
    daemon.stop();
}

fn certificates_as_kubernetes_mounts_them(driver: &str) {
    let one = Backend::good("one");
    let https = reserve();
    let authority = Authority::new("ours");
    let mount = TempDir::new("mount");
    let swap = |nth: usize, pair: &Pair| {
        let data = mount.0.join(format!("..{nth}"));
        fs::create_dir(&data).expect("made");
        fs::copy(&pair.certificate, data.join("tls.crt")).expect("copied");
        fs::copy(&pair.key, data.join("tls.key")).expect("copied");
        symlink(format!("..{nth}"), mount.0.join("..data_tmp")).expect("a link");
        rename(&mount.0.join("..data_tmp"), &mount.0.join("..data"));
        if nth > 0 {
            fs::remove_dir_all(mount.0.join(format!("..{}", nth - 1))).expect("removed");
        }
    };
    let pair = |nth: usize| authority.self_signed(&format!("number-{nth}"), &["a.example"]);
    swap(0, &pair(0));
    for name in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{name}"), mount.0.join(name)).expect("a link");
    }
    let path = mount.0.display();
    let certificate = format!(
        "[certificates.\"a.example\"]\nLocal = {{ certificate_path = \"{path}/tls.crt\", private_key_path = \
         \"{path}/tls.key\" }}\n"
    );
    let text = config(https, &one, &certificate).replace("http_address", "https_address");
    let daemon = start(driver, &text);
    let mut story = Story::of(&daemon);
    assert_eq!(over_tls(https), ("one".to_owned(), "CN=number-0".to_owned()));
    for nth in 1..4 {
        swap(nth, &pair(nth));
        story.expect("files that it names were read again");
        assert_eq!(over_tls(https), ("one".to_owned(), format!("CN=number-{nth}")));
    }
    // Files instead of links, written one after the other: together they are good again.
    let last = pair(9);
    let both = [("tls.crt", &last.certificate), ("tls.key", &last.key)];
    for (name, from) in both {
        fs::copy(from, mount.0.join(format!("{name}.new"))).expect("copied");
    }
    for (name, _) in both {
        rename(&mount.0.join(format!("{name}.new")), &mount.0.join(name));
    }
    story.expect("files that it names were read again");
    assert_eq!(over_tls(https), ("one".to_owned(), "CN=number-9".to_owned()));
    daemon.stop();
}

fn it_can_be_turned_off(driver: &str) {
    let one = Backend::good("one");
    let http = reserve();
    let text = |watch: bool, retries: usize| {
        format!("watch = {watch}\n{}", config(http, &one, &format!("retries = {retries}\n")))
    };
    let daemon = start(driver, &text(false, 1));
    let (mut story, folder) = (Story::of(&daemon), &daemon.directory);
    folder.write("config.toml", text(false, 2));
    story.expect_nothing();
    assert!(reload(&daemon, &text(true, 3)).contains("settings: watch; pools: ~web (retries)"));
    story.told += 1;
    folder.write("config.toml", text(true, 4));
    story.expect("pools: ~web (retries)");
    folder.write("config.toml", text(false, 4));
    story.expect("settings: watch");
    folder.write("config.toml", text(false, 5));
    story.expect_nothing();
    assert!(ask(&daemon).contains("pools: ~web (retries)"));
    daemon.stop();
}
