//! The table of `cert status`.

use ruststrom_core::acme::{
    Action, AuthorizationStatus, Challenge, Kept, OrderStatus, Outcome, StatusRow, Step, Stored, status_table,
};

use super::bench::{Bench, DAY, START, authorization, certificate, order, refused, settings};

#[test]
fn every_kind_of_row() {
    let names = |names: &[&str]| names.iter().map(|&name| name.into()).collect::<Vec<Box<str>>>();
    // One that was obtained, one that fails, one that fails and is in use, and what is in files.
    let mut good = Bench::new(settings(&["b.example", "a.example"]), Stored::default());
    good.run(DAY);
    let answer = |action: &Action, asked: &mut bool| match action {
        Action::Step(Step::Poll) => Some(order(OrderStatus::Invalid)),
        Action::Step(Step::Authorizations) if std::mem::replace(asked, true) => {
            Some(Outcome::Authorizations(vec![
                authorization("x", AuthorizationStatus::Valid),
                refused("c.example", Challenge::Http01, "connection"),
            ]))
        }
        _ => None,
    };
    let mut bad = Bench::new(settings(&["c.example"]), Stored::default());
    let mut asked = false;
    bad.answer = Box::new(move |action, _| answer(action, &mut asked));
    bad.run(20 * 60);
    let now = good.now.max(bad.now);
    let expired = certificate("f", &["f.example"], START - 100 * DAY);
    let rows = [
        StatusRow::of_authority(good.manager.settings(), good.folder.clone(), now),
        StatusRow::of_authority(bad.manager.settings(), bad.folder.clone(), bad.now),
        StatusRow::of_authority(&settings(&["d.example"]), Stored::default(), now),
        StatusRow::of_authority(
            &settings(&["a.example", "new.example", "b.example"]),
            good.folder.clone(),
            now,
        ),
        StatusRow::of_authority(
            &settings(&["e.example"]),
            Stored { certificate: Kept::Damaged("acme/e.example.pem: not\nPEM".into()), ..Stored::default() },
            now,
        ),
        StatusRow::of_files(names(&["f.example"]), Kept::Whole(expired), now),
        StatusRow::of_files(names(&["*.g.example"]), Kept::Damaged("g.crt: no such file".into()), now),
    ];
    let renewal = rows[0].next_renewal.clone();
    let expected = format!(
        "NAMES                            SOURCE      ISSUER      EXPIRY              NEXT RENEWAL  LAST ERROR\n\
         b.example,a.example              ca.example  Example CA  2027-04-15          {renewal}    -\n\
         c.example                        ca.example  -           -                   2027-01-15    2027-01-15 validate c.example: connection: Connection refused\n\
         d.example                        ca.example  -           -                   now           -\n\
         a.example,b.example,new.example  ca.example  Example CA  2027-04-15          now           -\n\
         e.example                        ca.example  -           -                   now           acme/e.example.pem: not PEM\n\
         f.example                        files       Example CA  2027-01-05 expired  -             -\n\
         *.g.example                      files       -           -                   -             g.crt: no such file\n"
    );
    assert_eq!(status_table(&rows), expected);
    let middle = good.manager.renews_at();
    assert!((START + 58 * DAY..START + 62 * DAY).contains(&middle));
    assert!(renewal.starts_with("2027-03-1"), "{renewal}");
    assert_eq!(
        status_table(&[]),
        "NAMES  SOURCE  ISSUER  EXPIRY  NEXT RENEWAL  LAST ERROR\n",
        "the titles at least"
    );
}
