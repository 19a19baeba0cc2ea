//! Simulated years: several instances that share a folder, an authority that is down, slow, lies and limits,
//! and kills at any step.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use ruststrom_core::acme::{
    Action, Challenge, Kept, LEASE_GRACE_SECS, LEASE_SECS, Ledger, Limits, Manager, Outcome, Problem,
    ProblemKind, Settings, Step, Stored, StoredCertificate,
};
use ruststrom_core::rng::Rng;

use super::authority::{Asker, Authority, DAY, HOUR, Lies, Validation};
use super::bench::settings;

const START: u64 = 1_800_000_000;
/// After so long without trouble there is a certificate: the longest backoff, and a few orders.
const RECOVERY: u64 = 30 * HOUR;
/// The same after trouble that is none of this side's: the authority was down or slow.
const SHORT_RECOVERY: u64 = 2 * HOUR;

/// What is wrong with the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    Down,
    Slow,
    Unsteady,
    BadNonces,
    Limits,
    Lies,
    /// This port can't be reached.
    Port(Challenge),
    NoPort,
    DiskFull,
    Kills,
    AccountsForgotten,
}

const TROUBLES: [Trouble; 12] = [
    Trouble::Down,
    Trouble::Slow,
    Trouble::Unsteady,
    Trouble::BadNonces,
    Trouble::Limits,
    Trouble::Lies,
    Trouble::Port(Challenge::Http01),
    Trouble::Port(Challenge::TlsAlpn01),
    Trouble::NoPort,
    Trouble::DiskFull,
    Trouble::Kills,
    Trouble::AccountsForgotten,
];

/// What the instances share.
#[derive(Debug, Default)]
struct Folder {
    certificates: Vec<Kept<StoredCertificate>>,
    stored_at: Vec<u64>,
    /// Read from the text that is on the disk.
    ledger: Option<Ledger>,
    ledger_damaged: bool,
    /// The key of the account, and whether it is known to be registered.
    account: Option<(u64, bool)>,
    /// The key of the unfinished order of each table.
    keys: Vec<Option<(Box<str>, u64)>>,
    /// Who holds the lease, and until when by that one's clock.
    lease: Option<(Asker, u64)>,
    next_key: u64,
    /// Counts the changes.
    version: u64,
}

/// An action under way.
#[derive(Debug)]
struct Busy {
    action: Action,
    effect_at: u64,
    deliver_at: u64,
    outcome: Option<Outcome>,
    killed: Option<Kill>,
    fails: Option<Problem>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kill {
    BeforeEffect,
    AfterEffect,
}

/// A manager of one instance.
#[derive(Debug)]
struct Seat {
    manager: Manager,
    incarnation: u64,
    busy: Option<Busy>,
    wake: u64,
    /// The order that it works on.
    url: Box<str>,
    read: Option<StoredCertificate>,
    served: Option<StoredCertificate>,
    /// The [`Folder::version`] that was read last.
    seen: u64,
    /// Actions of the day.
    actions: (u64, u32),
    /// `Retry-After` that is not yet saved.
    told: Option<u64>,
    /// `Retry-After` of the order.
    poll_at: u64,
}

#[derive(Debug)]
struct Instance {
    /// Seconds that its clock is fast.
    skew: u64,
    seats: Vec<Seat>,
    up_at: u64,
}

/// What a seed draws.
#[derive(Clone, Debug)]
pub(crate) struct Draw {
    pub(crate) days: u64,
    lifetime: u64,
    windows: bool,
    limits: Limits,
    instances: u64,
    tables: Vec<Settings>,
    troubles: Vec<Trouble>,
    /// Kills in 10 000 actions, besides those of [`Trouble::Kills`].
    kills: u64,
    renames: bool,
    damages: bool,
}

impl Draw {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let lifetime = [90 * DAY, 90 * DAY, 6 * DAY, 6 * DAY, 45 * DAY][rng.below(5) as usize];
        let limits = Limits {
            failed_validations: 5,
            orders: [300, 8][rng.below(2) as usize],
            duplicates: [5, 5, 3, usize::MAX][rng.below(4) as usize],
            accounts: [10, 2][rng.below(2) as usize],
        };
        let table = |names: &[&str], rng: &mut Rng| {
            let all = [Challenge::Http01, Challenge::TlsAlpn01];
            let challenges = if rng.below(4) == 0 { all[1..].to_vec() } else { all.to_vec() };
            Settings { challenges, limits, ..settings(names) }
        };
        let mut tables = vec![table(&["a.example", "www.a.example"], &mut rng)];
        if rng.below(2) == 0 {
            tables.push(table(&["b.example"], &mut rng));
        }
        let troubles = TROUBLES.into_iter().filter(|_| rng.below(2) == 0).collect();
        let days = if lifetime > 30 * DAY { 400 } else { 120 };
        Self {
            days,
            lifetime,
            windows: rng.below(2) == 0,
            limits,
            instances: 1 + rng.below(3),
            tables,
            troubles,
            kills: [0, 0, 3, 30][rng.below(4) as usize],
            renames: rng.below(3) == 0,
            damages: rng.below(3) == 0,
        }
    }
}

pub(crate) struct World {
    draw: Draw,
    now: u64,
    rng: Rng,
    folder: Folder,
    authority: Authority,
    instances: Vec<Instance>,
    trouble: Trouble,
    trouble_until: u64,
    /// Since when nothing was wrong; and since when nothing but the authority's absence.
    healthy_since: u64,
    blameless_since: u64,
    incarnations: u64,
    /// `Retry-After` of the authority: until when nothing may be ordered, by set of names.
    told: BTreeMap<String, u64>,
    /// When everything was looked at last, and whether something has happened since then.
    judged_at: u64,
    happened: bool,
    log: VecDeque<String>,
    trace: DefaultHasher,
    pub(crate) stats: Stats,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    pub(crate) issued: u64,
    pub(crate) failed: u64,
    pub(crate) kills: u64,
    pub(crate) orders: u64,
    pub(crate) resumed: u64,
    pub(crate) longest_ledger: usize,
    pub(crate) hash: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let draw = Draw::new(seed);
        let mut rng = Rng::new(seed ^ 0x5eed);
        let tables = draw.tables.len();
        let folder = Folder {
            certificates: vec![Kept::Nothing; tables],
            stored_at: vec![START; tables],
            keys: vec![None; tables],
            ..Folder::default()
        };
        let mut world = Self {
            now: START,
            folder,
            authority: Authority::new(draw.limits, draw.lifetime, draw.windows),
            instances: Vec::new(),
            trouble: Trouble::None,
            trouble_until: START + rng.below(3) * DAY,
            healthy_since: START,
            blameless_since: START,
            incarnations: 0,
            told: BTreeMap::new(),
            judged_at: START,
            happened: false,
            log: VecDeque::new(),
            trace: DefaultHasher::new(),
            stats: Stats::default(),
            rng,
            draw,
        };
        for _ in 0..world.draw.instances {
            let skew = world.rng.below(25);
            world.instances.push(Instance { skew, seats: Vec::new(), up_at: START });
        }
        world
    }

    fn say(&mut self, line: impl FnOnce() -> String) {
        self.happened = true;
        let line = format!("{:>9} {}", self.now - START, line());
        line.hash(&mut self.trace);
        if self.log.len() == 120 {
            self.log.pop_front();
        }
        self.log.push_back(line);
    }

    fn fail(&self, seed: u64, what: &str) -> ! {
        let lines: Vec<&str> = self.log.iter().map(|line| &**line).collect();
        panic!(
            "SEED {seed}, day {}: {what}\n{:?}\ntrouble {:?}\n{}\n{}",
            (self.now - START) / DAY,
            self.draw,
            self.trouble,
            lines.join("\n"),
            serde_json::to_string(&self.folder.ledger).expect("JSON")
        );
    }

    fn stored(&mut self, table: usize) -> Stored {
        let ledger = match &self.folder.ledger {
            None => Kept::Nothing,
            Some(_) if self.folder.ledger_damaged => Kept::Damaged("ledger.json: not JSON".into()),
            Some(ledger) => Kept::Whole(ledger.clone()),
        };
        let certificate = self.folder.certificates[table].clone();
        Stored { certificate, ledger, account: self.folder.account.is_some_and(|(_, known)| known) }
    }

    fn start(&mut self, instance: usize) {
        for table in 0..self.draw.tables.len() {
            let stored = self.stored(table);
            let read = stored.certificate.clone().whole();
            let clock = self.now + self.instances[instance].skew;
            self.incarnations += 1;
            let seed = self.rng.next_u64();
            let manager = Manager::new(self.draw.tables[table].clone(), stored, clock, seed);
            self.instances[instance].seats.push(Seat {
                manager,
                incarnation: self.incarnations,
                busy: None,
                wake: self.now,
                url: "".into(),
                served: read.clone(),
                read,
                seen: u64::MAX,
                actions: (0, 0),
                told: None,
                poll_at: 0,
            });
        }
    }

    fn kill(&mut self, instance: usize) {
        self.stats.kills += 1;
        self.say(|| format!("instance {instance} is killed"));
        let held = self.folder.lease.is_some_and(|((owner, ..), _)| owner == instance);
        if held {
            self.healthy_since = self.healthy_since.max(self.now);
        }
        self.blameless_since = self.now;
        self.instances[instance].seats.clear();
        self.instances[instance].up_at = self.now + 1 + self.rng.below(600);
    }

    /// Changes what is wrong with the world.
    fn next_trouble(&mut self) {
        let spoilt = !matches!(self.trouble, Trouble::None | Trouble::Down | Trouble::Slow);
        let healthy = self.trouble != Trouble::None;
        if healthy || self.draw.troubles.is_empty() {
            self.trouble = Trouble::None;
            let longest = if self.rng.below(2) == 0 { 4 * DAY } else { 20 * DAY };
            self.trouble_until = self.now + HOUR + self.rng.below(longest);
        } else {
            let n = self.rng.below(self.draw.troubles.len() as u64) as usize;
            self.trouble = self.draw.troubles[n];
            let longest = if self.rng.below(3) == 0 { self.draw.lifetime / 4 } else { DAY };
            self.trouble_until = self.now + 60 + self.rng.below(longest);
        }
        self.healthy_since = self.now;
        if spoilt {
            self.blameless_since = self.now;
        }
        let lies = self.trouble == Trouble::Lies;
        let percent = |rng: &mut Rng| if lies { [0, 20, 100][rng.below(3) as usize] } else { 0 };
        self.authority.lies = Lies {
            certificates: percent(&mut self.rng),
            orders: percent(&mut self.rng),
            windows: percent(&mut self.rng),
        };
        if self.trouble == Trouble::AccountsForgotten {
            self.authority.forget_accounts();
        }
        if self.draw.damages && self.rng.below(3) == 0 {
            let table = self.rng.below(self.draw.tables.len() as u64) as usize;
            self.folder.certificates[table] = Kept::Damaged("example.pem: not PEM".into());
            self.folder.version += 1;
            self.blameless_since = self.now;
        }
        if self.draw.renames && self.rng.below(3) == 0 {
            self.rename();
        }
        let trouble = self.trouble;
        self.say(|| format!("trouble: {trouble:?}"));
    }

    /// A name is added to the first table, or removed.
    fn rename(&mut self) {
        let n = self.rng.below(6);
        let mut names: Vec<Box<str>> = vec!["a.example".into(), "www.a.example".into()];
        names.extend((0..n).map(|i| format!("x{i}-{}.a.example", self.rng.below(3)).into()));
        names.sort_unstable();
        self.draw.tables[0].names = names;
        self.blameless_since = self.now;
        let settings = self.draw.tables[0].clone();
        for instance in &mut self.instances {
            if let Some(seat) = instance.seats.first_mut() {
                seat.manager.reconfigure(settings.clone());
                seat.wake = self.now;
            }
        }
        self.say(|| format!("names: {:?}", settings.names));
    }

    fn run(&mut self, seed: u64) {
        let end = START + self.draw.days * DAY;
        for instance in 0..self.instances.len() {
            self.start(instance);
        }
        while self.now < end {
            let mut next = self.trouble_until;
            next = self.authority.validations.iter().map(|v| v.at).fold(next, u64::min);
            for instance in &self.instances {
                if instance.seats.is_empty() {
                    next = next.min(instance.up_at);
                }
                for seat in &instance.seats {
                    next = next.min(match &seat.busy {
                        Some(busy) if busy.outcome.is_none() => busy.effect_at,
                        Some(busy) => busy.deliver_at,
                        None => seat.wake,
                    });
                }
            }
            self.now = self.now.max(next);
            if self.trouble_until <= self.now {
                self.next_trouble();
            }
            self.validate();
            for instance in 0..self.instances.len() {
                if self.instances[instance].seats.is_empty() && self.instances[instance].up_at <= self.now {
                    self.start(instance);
                }
                for table in 0..self.draw.tables.len() {
                    if table < self.instances[instance].seats.len() {
                        self.turn(instance, table, seed);
                    }
                }
            }
            // Looking into the folder changes little, and happens often.
            if std::mem::take(&mut self.happened) || self.now > self.judged_at + HOUR {
                self.judged_at = self.now;
                self.judge(seed);
            }
        }
        self.stats.issued = self.authority.issued;
        self.stats.failed = self.authority.failed;
        self.stats.orders = self.authority.orders_made;
        self.stats.hash = self.trace.finish();
    }

    /// Validations that end now: the answer is there while whoever asked has the lease, and the port is open.
    fn validate(&mut self) {
        let now = self.now;
        let (due, rest): (Vec<Validation>, Vec<Validation>) =
            self.authority.validations.drain(..).partition(|v| v.at <= now);
        self.authority.validations = rest;
        for validation in due {
            let (instance, table, incarnation) = validation.asker;
            let alive =
                self.instances[instance].seats.get(table).is_some_and(|seat| seat.incarnation == incarnation);
            let holds = self.folder.lease.is_some_and(|(asker, _)| asker == validation.asker);
            let open = match self.trouble {
                Trouble::NoPort => false,
                Trouble::Port(closed) => closed != validation.challenge,
                _ => true,
            };
            let reached = alive && holds && open;
            self.say(|| format!("validation of {}: {reached}", validation.name));
            self.authority.validated(&validation, reached, now);
        }
    }

    fn turn(&mut self, instance: usize, table: usize, seed: u64) {
        let skew = self.instances[instance].skew;
        let (now, clock) = (self.now, self.now + skew);
        let seat = &mut self.instances[instance].seats[table];
        if let Some(busy) = &mut seat.busy {
            if busy.outcome.is_none() && busy.effect_at <= now {
                if busy.killed == Some(Kill::BeforeEffect) {
                    return self.kill(instance);
                }
                let action = busy.action.clone();
                let fails = busy.fails.clone();
                let outcome = match fails {
                    Some(problem) => Outcome::Failed(problem),
                    None => self.effect(instance, table, &action, seed),
                };
                let seat = &mut self.instances[instance].seats[table];
                let Some(busy) = &mut seat.busy else { return };
                busy.outcome = Some(outcome);
                if busy.killed == Some(Kill::AfterEffect) {
                    return self.kill(instance);
                }
            }
            let seat = &mut self.instances[instance].seats[table];
            if seat.busy.as_ref().is_none_or(|busy| busy.outcome.is_none() || busy.deliver_at > now) {
                return;
            }
            let Some(Busy { outcome: Some(outcome), action, .. }) = seat.busy.take() else { return };
            if let Outcome::Failed(Problem { kind: ProblemKind::RateLimited, retry_after, .. }) = &outcome {
                seat.told = retry_after.map(|secs| now + secs);
            }
            if let (Outcome::Order(order), Action::Step(Step::Poll)) = (&outcome, &action) {
                seat.poll_at = now + order.retry_after.unwrap_or(0);
            }
            seat.manager.handle(clock, outcome.clone());
            if !matches!(action, Action::Look) {
                self.say(|| format!("{instance}.{table} {action:?} -> {}", short(&outcome)));
            }
        }
        let seat = &mut self.instances[instance].seats[table];
        if seat.wake > now && seat.busy.is_none() {
            // Whatever woke it, asking early does no harm.
            seat.wake = seat.wake.min(now);
        }
        let notes: Vec<String> = seat.manager.notes().map(|note| note.text).collect();
        let action = seat.manager.poll(clock);
        for note in notes {
            self.say(|| format!("{instance}.{table} \"{note}\""));
        }
        let seat = &mut self.instances[instance].seats[table];
        if let Action::Wait(until) = action {
            if until == u64::MAX || until <= clock {
                self.fail(seed, &format!("{instance}.{table} waits until {until}, now {clock}"));
            }
            seat.wake = until - skew;
            return;
        }
        let day = now / DAY;
        seat.actions = if seat.actions.0 == day { (day, seat.actions.1 + 1) } else { (day, 1) };
        if seat.actions.1 > 40_000 {
            self.fail(seed, "it does not come to rest");
        }
        let busy = self.busy(action);
        self.instances[instance].seats[table].busy = Some(busy);
    }

    /// How an action will go.
    fn busy(&mut self, action: Action) -> Busy {
        let now = self.now;
        let asks = matches!(action, Action::Step(_));
        let writes = matches!(action, Action::Save | Action::Store | Action::TakeLease | Action::RenewLease)
            || matches!(action, Action::Step(Step::Finalize | Step::Account { .. }));
        let mut slow = if asks { self.rng.below(3) } else { 0 };
        let mut fails = None;
        let unreachable = |text: &str| Some(Problem::new(ProblemKind::Unreachable, text));
        let mut lost = false;
        match self.trouble {
            Trouble::Down if asks => {
                slow = [0, 39][self.rng.below(2) as usize];
                fails = unreachable("connection refused");
            }
            Trouble::Slow if asks => slow = 5 + self.rng.below(33),
            Trouble::Unsteady if asks => match self.rng.below(6) {
                0 => fails = unreachable("connection reset"),
                1 => (slow, lost) = (39, true),
                2 => {
                    let retry_after = [None, Some(5), Some(2 * HOUR)][self.rng.below(3) as usize];
                    fails = Some(Problem { retry_after, ..Problem::new(ProblemKind::Busy, "503") });
                }
                _ => {}
            },
            Trouble::BadNonces if asks && self.rng.below(10) < 6 => {
                fails = Some(Problem::new(ProblemKind::BadNonce, "badNonce"));
            }
            Trouble::Limits if matches!(action, Action::Step(Step::NewOrder { .. })) => {
                let retry_after = [None, Some(60), Some(5 * HOUR)][self.rng.below(3) as usize];
                fails = Some(Problem { retry_after, ..Problem::new(ProblemKind::RateLimited, "too many") });
            }
            Trouble::DiskFull if writes => fails = Some(Problem::new(ProblemKind::Disk, "no space left")),
            _ => {}
        }
        let often = if self.trouble == Trouble::Kills { 1_000 } else { self.draw.kills };
        let killed = (!matches!(action, Action::Look) && self.rng.below(10_000) < often)
            .then(|| if self.rng.below(2) == 0 { Kill::BeforeEffect } else { Kill::AfterEffect });
        let effect_at = now + if slow > 0 { self.rng.below(slow + 1) } else { 0 };
        let mut busy = Busy { action, effect_at, deliver_at: now + slow, outcome: None, killed, fails };
        if lost {
            // It is executed, but the answer does not come.
            busy.deliver_at = now + 40;
        }
        busy
    }

    /// What an action does, and its outcome.
    fn effect(&mut self, instance: usize, table: usize, action: &Action, seed: u64) -> Outcome {
        let now = self.now;
        let seat = &self.instances[instance].seats[table];
        let (asker, url) = ((instance, table, seat.incarnation), seat.url.clone());
        let clock = now + self.instances[instance].skew;
        let holds = self.folder.lease.is_some_and(|(owner, _)| owner == asker);
        let settings = seat.manager.settings().clone();
        let lost = || Outcome::Failed(Problem::new(ProblemKind::LeaseLost, "another has it"));
        let account = self.folder.account.map_or(0, |(key, _)| key);
        match action {
            Action::Wait(_) => Outcome::Done,
            Action::Look if seat.seen == self.folder.version => Outcome::Done,
            Action::Look => {
                self.instances[instance].seats[table].seen = self.folder.version;
                let stored = self.stored(table);
                self.instances[instance].seats[table].read = stored.certificate.clone().whole();
                Outcome::Stored(stored)
            }
            Action::TakeLease => {
                let free = self.folder.lease.is_none_or(|(_, until)| until + LEASE_GRACE_SECS <= clock);
                if !free {
                    return Outcome::LeaseHeld;
                }
                self.folder.lease = Some((asker, clock + LEASE_SECS));
                let stored = self.stored(table);
                self.instances[instance].seats[table].read = stored.certificate.clone().whole();
                Outcome::Leased { until: clock + LEASE_SECS, stored }
            }
            Action::RenewLease if holds => {
                self.folder.lease = Some((asker, clock + LEASE_SECS));
                Outcome::Renewed { until: clock + LEASE_SECS }
            }
            Action::RenewLease => lost(),
            Action::Save | Action::Store if !holds => lost(),
            Action::Save => {
                self.folder.version += 1;
                let seat = &self.instances[instance].seats[table];
                let text = serde_json::to_string(seat.manager.ledger()).expect("JSON");
                self.stats.longest_ledger = self.stats.longest_ledger.max(text.len());
                self.folder.ledger = Some(serde_json::from_str(&text).expect("it reads what it writes"));
                self.folder.ledger_damaged = false;
                if let Some(until) = self.instances[instance].seats[table].told.take() {
                    self.told.insert(settings.name_set(), until);
                }
                Outcome::Done
            }
            Action::Store => {
                let certificate =
                    self.instances[instance].seats[table].read.clone().expect("one was downloaded");
                self.folder.version += 1;
                self.folder.certificates[table] = Kept::Whole(certificate);
                self.folder.stored_at[table] = now;
                self.folder.keys[table] = None;
                Outcome::Done
            }
            Action::Serve => {
                let seat = &mut self.instances[instance].seats[table];
                seat.served = seat.read.clone();
                Outcome::Done
            }
            Action::ReleaseLease => {
                self.folder.lease.take_if(|(owner, _)| *owner == asker);
                Outcome::Done
            }
            Action::Step(step) => {
                if !holds {
                    self.fail(seed, &format!("{instance}.{table} asks without the lease: {step:?}"));
                }
                let told = self.told.get(&settings.name_set()).copied().unwrap_or(0);
                let poll_at = self.instances[instance].seats[table].poll_at;
                if *step == Step::Poll && now < poll_at {
                    self.fail(seed, &format!("the order was to be read in {} seconds", poll_at - now));
                }
                // Clocks of instances differ by up to 25 seconds.
                if matches!(step, Step::NewOrder { .. }) && now + 30 < told {
                    self.fail(seed, &format!("it was told to come back in {} seconds", told - now));
                }
                self.ask(step, &settings, (instance, table), asker, account, &url)
            }
        }
    }

    /// A step reaches the authority.
    fn ask(
        &mut self,
        step: &Step,
        settings: &Settings,
        (instance, table): (usize, usize),
        asker: Asker,
        account: u64,
        url: &str,
    ) -> Outcome {
        let now = self.now;
        let (authority, rng) = (&mut self.authority, &mut self.rng);
        match step {
            Step::Account { anew } => {
                let known = self.folder.account.filter(|_| !*anew);
                let key = known.map_or_else(
                    || {
                        self.folder.next_key += 1;
                        self.folder.next_key
                    },
                    |(key, _)| key,
                );
                if known.is_some_and(|(_, registered)| registered) {
                    return Outcome::Done;
                }
                self.folder.account = Some((key, true));
                self.folder.version += 1;
                authority.account(key, now)
            }
            Step::RenewalInfo { .. } => {
                let read = self.instances[instance].seats[table].read.clone().expect("a certificate");
                authority.renewal_info(&read, now, rng)
            }
            Step::NewOrder { replaces } => {
                let outcome = authority.new_order(account, &settings.names, replaces.clone(), now, rng);
                if let Outcome::Order(order) = &outcome {
                    self.instances[instance].seats[table].url = order.url.clone();
                }
                outcome
            }
            Step::Resume { url } => {
                self.stats.resumed += 1;
                self.instances[instance].seats[table].url = url.clone();
                authority.read(url, account, now, rng)
            }
            Step::Authorizations => authority.authorizations(url),
            Step::Validate { name, challenge } => authority.validate(url, name, *challenge, asker, now, rng),
            Step::Poll => authority.read(url, account, now, rng),
            Step::Finalize => {
                let kept = self.folder.keys[table].take().filter(|(of, _)| &**of == url);
                let (of, key) = kept.unwrap_or_else(|| {
                    self.folder.next_key += 1;
                    (url.into(), self.folder.next_key)
                });
                self.folder.keys[table] = Some((of, key));
                authority.finalize(url, account, key, now, rng)
            }
            Step::Download => {
                let key =
                    self.folder.keys[table].as_ref().filter(|(of, _)| &**of == url).map(|(_, key)| *key);
                let outcome = authority.download(url, key, now, rng);
                if let Outcome::Certificate { certificate, .. } = &outcome {
                    self.instances[instance].seats[table].read = Some(certificate.clone());
                }
                outcome
            }
        }
    }

    /// What has to be true at any time.
    fn judge(&mut self, seed: u64) {
        if let Some(broken) = self.authority.broken.first() {
            self.fail(seed, &format!("a limit is broken: {broken}"));
        }
        if self.stats.longest_ledger > 40_000 {
            self.fail(seed, &format!("the ledger has {} bytes", self.stats.longest_ledger));
        }
        if self.trouble != Trouble::None {
            return;
        }
        let now = self.now;
        let healthy = now.saturating_sub(self.healthy_since);
        let blameless = now.saturating_sub(self.blameless_since);
        for (table, settings) in self.draw.tables.iter().enumerate() {
            let up = |i: &&Instance| !i.seats.is_empty() && now >= i.up_at + 700;
            if healthy > 700 && now > self.folder.stored_at[table] + 700 {
                for instance in self.instances.iter().filter(up) {
                    let served = &instance.seats[table].served;
                    let kept = self.folder.certificates[table].clone().whole();
                    if kept.is_some() && served != &kept {
                        self.fail(seed, &format!("table {table}: served {served:?}, kept {kept:?}"));
                    }
                }
            }
            let soon = healthy > SHORT_RECOVERY && blameless > self.draw.lifetime;
            if !(healthy > RECOVERY || soon) || !self.instances.iter().any(|i| up(&i)) {
                continue;
            }
            // By then it is due, whatever the window is.
            let fresh = |c: &StoredCertificate| now < c.not_before + self.draw.lifetime / 10 * 7 + RECOVERY;
            let good = |c: &StoredCertificate| {
                fresh(c) && now < c.not_after && settings.names.iter().all(|name| c.names.contains(name))
            };
            let kept = self.folder.certificates[table].clone().whole();
            if !kept.as_ref().is_some_and(good) && self.authority.may_issue(&settings.names, now) {
                let hours = healthy / HOUR;
                self.fail(seed, &format!("table {table}: {kept:?} after {hours} hours without trouble"));
            }
        }
    }
}

fn short(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Leased { until, .. } => format!("Leased {until}"),
        Outcome::Stored(_) => "Stored".into(),
        other => format!("{other:?}"),
    }
}

pub(crate) fn simulate(seed: u64) -> Stats {
    let mut world = World::new(seed);
    world.run(seed);
    world.stats
}

fn simulate_all(seeds: std::ops::Range<u64>) {
    let count = seeds.end - seeds.start;
    let mut sum = Stats::default();
    for seed in seeds {
        let stats = simulate(seed);
        sum.issued += stats.issued;
        sum.failed += stats.failed;
        sum.kills += stats.kills;
        sum.orders += stats.orders;
        sum.resumed += stats.resumed;
        sum.longest_ledger = sum.longest_ledger.max(stats.longest_ledger);
    }
    assert!(
        sum.issued > 4 * count && sum.failed > count && sum.kills > count && sum.resumed > count,
        "{sum:?}"
    );
}

#[test]
fn years() {
    simulate_all(0..8);
}

#[test]
#[ignore = "takes minutes"]
fn more_years() {
    simulate_all(8..300);
}

#[test]
fn a_seed_runs_twice_the_same() {
    for seed in [5, 9] {
        assert_eq!(simulate(seed), simulate(seed), "seed {seed}");
    }
}
