//! Dates: the civil calendar, and `Date` in its one good form (RFC 9110 §5.6.7), without formatting
//! machinery.

/// The last day of the year 9999, in days since 1970-01-01.
const LAST_DAY: u64 = 2_932_896;

/// The date (year, month 1..=12, day 1..=31) of the proleptic Gregorian calendar that is `days` days after
/// 1970-01-01.
#[must_use]
pub fn civil_date(days: u64) -> (u64, u64, u64) {
    // Counted in eras of 400 years that begin on March 1st, so that a leap day is the last day of its year.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// Writes an IMF-fixdate, e.g. `Sun, 06 Nov 1994 08:49:37 GMT`. `unix_secs` are seconds since 1970-01-01;
/// those beyond the year 9999 are written as its last second.
pub fn write_date(unix_secs: u64, out: &mut [u8; 29]) {
    const DAYS: &[u8; 21] = b"ThuFriSatSunMonTueWed";
    const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let secs = unix_secs.min(LAST_DAY * 86_400 + 86_399);
    let (days, of_day) = (secs / 86_400, secs % 86_400);
    let (year, month, day) = civil_date(days);

    let two = |n: u64| [b'0' + (n / 10) as u8, b'0' + (n % 10) as u8];
    out.copy_from_slice(b"Thu, 01 Jan 1970 00:00:00 GMT");
    let weekday = (days % 7) as usize * 3;
    out[0..3].copy_from_slice(&DAYS[weekday..weekday + 3]);
    out[5..7].copy_from_slice(&two(day));
    let name = (month as usize - 1) * 3;
    out[8..11].copy_from_slice(&MONTHS[name..name + 3]);
    out[12..14].copy_from_slice(&two(year / 100));
    out[14..16].copy_from_slice(&two(year % 100));
    out[17..19].copy_from_slice(&two(of_day / 3_600));
    out[20..22].copy_from_slice(&two(of_day / 60 % 60));
    out[23..25].copy_from_slice(&two(of_day % 60));
}

#[cfg(test)]
mod tests {
    use super::{LAST_DAY, civil_date, write_date};

    #[test]
    fn civil_dates() {
        let table = [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (LAST_DAY, (9999, 12, 31)),
        ];
        for (days, date) in table {
            assert_eq!(civil_date(days), date, "{days}");
        }
    }

    #[test]
    fn dates() {
        let table: &[(u64, &str)] = &[
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
            (1_735_689_600, "Wed, 01 Jan 2025 00:00:00 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ];
        for (secs, text) in table {
            let mut out = [0; 29];
            write_date(*secs, &mut out);
            assert_eq!(std::str::from_utf8(&out).unwrap(), *text, "{secs}");
        }
    }
}
