//! Bugs that are put into the core on purpose, one at a time and only with the feature `planted`: each must
//! be found.

/// Within so many seeds a bug has to be found.
pub const SEEDS: u64 = 300;

/// The bugs: the number that chooses one in the core, and what is wrong then.
pub const BUGS: &[(u32, &str)] = &[
    (1, "a page is not given back"),
    (2, "the in-flight counter is not decremented"),
    (3, "a POST is retried"),
    (4, "a connection without a page to read is never woken"),
    (5, "a stale id is accepted"),
    (6, "the results of probes are ignored"),
    (7, "a half-close through a tunnel is swallowed"),
    (8, "a chunk header says one byte too many"),
    (9, "a timer is not moved when its deadline comes nearer"),
    (10, "a connection with bytes left over goes back to the pool"),
    (11, "a recycled buffer is not cleared before a local reply"),
    (12, "a request is retried after its response had begun"),
    (13, "the chunked encoder is not rewound for a retry"),
    (14, "max_connections is ignored"),
    (15, "an unhealthy backend is still chosen"),
    (16, "a free connection slot wakes no waiting request"),
    (17, "a free connection slot nudges no other shard"),
    (18, "an exchange ends twice"),
    (19, "a retried exchange is not recorded"),
    (20, "an incomplete response ends like a complete one"),
    (21, "a tunnel that is cut ends like a whole one"),
    (22, "one shard never reports that it has drained"),
    (23, "an interim response reaches a client of HTTP/1.0"),
    (24, "a 100 (continue) is swallowed"),
    (25, "round robin skips every other turn"),
    (26, "a connection lives on after half a request"),
    (27, "a truncated response counts as complete"),
    (28, "bytes for a client do not wake its connection"),
    (29, "a client whose close lingered stays counted"),
    (30, "backend_head fires in half its time"),
    (31, "backend_head never fires"),
    (32, "connect takes twice its time"),
    (33, "an idle client is never closed"),
    (34, "a later head has half its time"),
    (35, "the first head has no timeout"),
    (36, "bytes do not move a tunnel's timeout"),
    (37, "queue fires in half its time"),
    (38, "one request more than allowed waits"),
    (39, "a tunnel never times out"),
    (40, "stall fires in half its time"),
    (41, "the record names the backend that failed first"),
    (42, "a reused connection is no attempt in the record"),
    (43, "a fresh connection after a reused one counts as reused"),
    (44, "only the first bytes of an upload are counted"),
    (45, "content that is sent with its head is not counted"),
    (46, "a request counts as sent when its backend was chosen"),
    (47, "a response counts as read when its request was sent"),
    (48, "request trailers are lost"),
    (49, "response trailers are lost"),
    (50, "a field named in Connection reaches the backend"),
    (51, "X_Forwarded_For reaches the backend"),
    (52, "Keep-Alive reaches the backend"),
    (53, "everybody is a trusted proxy"),
    (54, "a trusted proxy's X-Forwarded-Proto is replaced"),
    (55, "Keep-Alive reaches the client"),
    (56, "a health check without a descriptor marks the backend"),
    (57, "requests without a descriptor mark the backend"),
    (58, "a reload forgets who was unhealthy"),
    (59, "X-Forwarded-Host is empty"),
    (60, "health changes are told to lower shards only"),
    (61, "a reader that waits for a page is forgotten"),
    (62, "one good probe is enough, whatever rise is"),
    (63, "one bad probe is enough, whatever fall is"),
    (64, "no backend is ever slow"),
    (65, "two failed connects mark a backend"),
    (66, "one client more than connections_per_ip"),
    (67, "connections is ignored"),
    (68, "no Retry-After"),
    (69, "an idle connection to a backend is never closed"),
    (70, "a backend that failed is asked again"),
    (71, "far timers are forgotten when a nearer one goes"),
    (72, "one idle connection more than pool_max_idle_per_host"),
    (73, "retries are not counted"),
    (74, "a shortage of descriptors counts as a refusal"),
    (75, "the event loop sleeps 200 ms too long"),
    (76, "accepting never goes on after a pause"),
    (77, "a client's credentials bind no connection"),
    (78, "a challenge binds no connection"),
    (79, "a request on an authenticated connection is sent again elsewhere"),
    (80, "a connection outlives the client that authenticated it"),
    (81, "a client's next request leaves the connection that it authenticated"),
    (82, "weights do not count for round robin and random"),
    (83, "a recovered backend has its whole share at once"),
    (84, "a slow backend keeps its whole share"),
    (85, "more than one exchange in flight counts as one"),
    (86, "weights do not count for least connection"),
    (87, "a sticky cookie is not followed"),
    (88, "each response sets the sticky cookie"),
    (89, "a backend that goes moves the clients of others"),
    (90, "a random choice is the first usable backend"),
    (91, "a backup is used beside the others"),
    (92, "a backend of weight 0 gets requests"),
    (93, "an unhealthy backend is tried without a pause"),
    (94, "equal backends take no turns"),
    (95, "a full backend makes requests wait though another has room"),
    (96, "one request less than allowed waits"),
    (120, "plaintext that a session holds counts for nothing"),
    (121, "the end of a socket without close_notify is an end"),
    (122, "the last byte counts as sent before its ciphertext has gone"),
    (123, "a connection is closed without close_notify"),
    (124, "a handshake has no deadline"),
    (125, "what a session has to say waits although there is room"),
    (126, "nobody is told of the end by close_notify"),
    (127, "requests for a host of another certificate are served"),
    (128, "ciphertext that a session has no room for is lost"),
    (129, "plain HTTP on a port for TLS is closed without a word"),
    (130, "a byte that was held back is sent twice"),
    (131, "something is written behind the end of our half"),
    (132, "nobody is told by an alert what is wrong"),
    (133, "a handshake with a backend has no deadline"),
    (134, "X-Forwarded-Proto is http over TLS"),
    (135, "a client says itself what its certificate is"),
    (136, "the first head over TLS has the handshake's deadline"),
    (137, "a handshake has half its time"),
    (138, "a backend's wrong name counts as an unknown authority"),
    (139, "reading writes what a writable event is to come for"),
    (140, "what comes behind a handshake is read with the next bytes"),
    (141, "MaxBodySize looks at Content-Length only"),
    (142, "Headers removes only the first field of a name"),
    (143, "X-Forwarded-Proto of a trusted proxy counts for nothing"),
    (144, "a rate limit counts for each shard alone"),
    (145, "a reload forgets what a rate limit has counted"),
    (146, "the window of a rate limit is half as long"),
    (147, "Retry-After of a rate limit is a second too early"),
    (148, "an error page has the length of what it replaces"),
    (149, "the end of a compressed body is lost"),
    (150, "a strong ETag stays with compressed content"),
    (151, "whoever nobody can be asked about is let in"),
    (152, "passwords reach backends that are not to have them"),
    (153, "who waits at a listener that a reload takes away is turned away"),
    (154, "a reload leaves the middlewares as they were"),
    (155, "the query is lost when a path is rewritten"),
    (156, "clients of IPv6 are not redirected"),
    (157, "one field more than allowed"),
    (158, "a target may be one byte too long"),
    (159, "IPv4 in IPv6 is another client"),
    (160, "the admin listener is subject to the limits of connections"),
    (161, "bytes of a tunnel that came before the 101 are lost"),
    (162, "credit of a stream that was reset is lost"),
    (163, "credit of a connection is given back twice"),
    (164, "the last stream of a GOAWAY is one too low"),
    (165, "a field block that is refused is not decoded"),
    (166, "END_STREAM is put on a frame that has gone"),
    (167, "a stream that has ended gets credit"),
    (168, "a setting for the table of a client counts for nothing"),
    (169, "a setting for windows counts for new streams only"),
    (170, "a stream above the last one of a GOAWAY is served"),
    (171, "data of one stream goes out on another"),
    (172, "trailers on a stream are lost"),
    (173, "a drain cuts streams"),
    (174, "credit for all streams wakes none of them"),
    (175, "a client that resets a stream loses all of them"),
    (176, "a request whose stream a backend has reset counts as not processed"),
    (177, "a stream above the last one of a backend's GOAWAY is waited for"),
    (178, "the last stream of a backend's GOAWAY counts as not taken"),
    (179, "a refused stream counts as a failed connect"),
    (180, "credit of a stream to a backend that was reset is lost"),
    (181, "a setting for the table of a backend counts for nothing"),
    (182, "one stream more than a backend takes"),
    (183, "the end of a request is lost behind its content"),
    (184, "a request that had to wait for credit is answered in less than its time"),
    (185, "whoever stops in the middle of a frame is waited for"),
    (186, "a backend that never says 100 has all the time of the world"),
    (187, "a silent backend is not asked whether it is there"),
    (188, "a connection that has said nothing for so long gets further requests"),
    (189, "the end of a client's half of a tunnel is lost on its stream"),
    (190, "bytes of a tunnel go out on the stream of a neighbour"),
    (191, "a WebSocket of a client of HTTP/1.1 has no answer to its key"),
    (192, "credit of a tunnel that was reset is lost"),
    (193, "backends are asked for WebSockets that they have not announced"),
    (195, "a drain cuts tunnels on streams at once"),
];

/// Runs seeds with each bug, from the one with this number on, until it is found, and prints a line for each.
/// True if all were found.
#[cfg(feature = "planted")]
pub fn check(first: u64, print: &mut dyn FnMut(&str)) -> bool {
    let mut not_found = 0;
    print(&format!("{:>3}  {:<58} {:>5}  {:<20}", "bug", "what is wrong", "seed", "found by"));
    for (number, what) in BUGS.iter().filter(|(number, _)| u64::from(*number) >= first) {
        ruststrom_core::planted::choose(*number);
        let found = (1..=SEEDS).find_map(|seed| Some((seed, crate::run(seed, false).violation?)));
        ruststrom_core::planted::choose(0);
        match found {
            Some((seed, violation)) => {
                let details: String = violation.details.chars().take(70).collect();
                print(&format!("{number:>3}  {what:<58} {seed:>5}  {:<20} {details}", violation.invariant));
            }
            None => {
                not_found += 1;
                print(&format!("{number:>3}  {what:<58}     -  NOT FOUND in {SEEDS} seeds"));
            }
        }
    }
    print(&format!("{} planted bugs, {not_found} not found", BUGS.len()));
    not_found == 0
}

/// Prints that this build has no planted bugs. False.
#[cfg(not(feature = "planted"))]
pub fn check(_: u64, print: &mut dyn FnMut(&str)) -> bool {
    print(
        "this build has no planted bugs: \
         cargo run --profile sim -p ruststrom-sim --features planted -- --planted",
    );
    false
}
