//! HL7 time stamps.

/// `YYYYMMDDHHMMSS+0000` of a time in milliseconds since the epoch.
pub(crate) fn format(now_ms: u64) -> String {
    let seconds = now_ms / 1000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}{month:02}{day:02}{:02}{:02}{:02}+0000", rest / 3600, rest % 3600 / 60, rest % 60)
}

/// The proleptic Gregorian date of a day since 1970-01-01, by counting in eras of 400 years from 1 March.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_ERA: u64 = 719_468;
    let days = days.saturating_add(DAYS_TO_ERA);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// `YYYY-MM-DD` or `YYYY-MM-DD HH:MM` of an HL7 time stamp; other text as it is.
pub(crate) fn readable(stamp: &str) -> String {
    let digits: String = stamp.chars().take_while(char::is_ascii_digit).collect();
    let part = |from: usize, to: usize| digits.get(from..to);
    match (part(0, 4), part(4, 6), part(6, 8), part(8, 10), part(10, 12)) {
        (Some(year), Some(month), Some(day), Some(hour), Some(minute)) => {
            let zone = stamp.find(['+', '-']).and_then(|at| stamp.get(at..)).unwrap_or_default();
            format!("{year}-{month}-{day} {hour}:{minute} {zone}").trim_end().to_owned()
        }
        (Some(year), Some(month), Some(day), _, _) => format!("{year}-{month}-{day}"),
        _ => stamp.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_in_the_calendar() {
        assert_eq!(format(0), "19700101000000+0000");
        assert_eq!(format(951_782_399_000), "20000228235959+0000");
        assert_eq!(format(951_782_400_000), "20000229000000+0000");
        assert_eq!(format(1_798_761_600_000), "20270101000000+0000");
        assert_eq!(readable("20260102030405+0100"), "2026-01-02 03:04 +0100");
        assert_eq!(readable("20260102"), "2026-01-02");
        assert_eq!(readable("soon"), "soon");
    }
}
