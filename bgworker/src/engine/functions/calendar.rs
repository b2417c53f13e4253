//! Days and dates: Postgres' own arithmetic (`datetime.c`, `timestamp.c`), whose names the functions keep. Years
//! before 1 AD count on: 1 BC is 0.

/// Microseconds.
pub(super) const SECOND: i64 = 1_000_000;
pub(super) const MINUTE: i64 = 60 * SECOND;
pub(super) const HOUR: i64 = 60 * MINUTE;
pub(super) const DAY: i64 = 24 * HOUR;

/// Julian day of 1970-01-01.
pub(super) const UNIX_EPOCH_JDATE: i64 = 2_440_588;

/// The first Julian days that no date and no timestamp have: of the years 5874898 and 294277.
pub(super) const DATE_END_JULIAN: i64 = 2_147_483_494;
pub(super) const TIMESTAMP_END_JULIAN: i64 = 109_203_528;

/// A day of the proleptic Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Date {
    pub(super) year: i64,
    pub(super) month: i64,
    pub(super) day: i64,
}

pub(super) fn date2j(date: Date) -> i64 {
    let (month, year) = if date.month > 2 {
        (date.month + 1, date.year + 4800)
    } else {
        (date.month + 13, date.year + 4799)
    };
    let century = year / 100;
    year * 365 - 32_167 + year / 4 - century + century / 4 + 7834 * month / 256 + date.day
}

/// Of days from 0 on.
pub(super) fn j2date(julian: i64) -> Date {
    let mut julian = u64::try_from(julian).unwrap_or(0) + 32_044;
    let mut quad = julian / 146_097;
    let extra = (julian - quad * 146_097) * 4 + 3;
    julian += 60 + quad * 3 + extra / 146_097;
    quad = julian / 1461;
    julian -= quad * 1461;
    let mut year = julian * 4 / 1461;
    julian = 123
        + if year != 0 {
            (julian + 305) % 365
        } else {
            (julian + 306) % 366
        };
    year += quad * 4;
    quad = julian * 2141 / 65_536;
    Date {
        year: year as i64 - 4800,
        month: ((quad + 10) % 12 + 1) as i64,
        day: (julian - 7834 * quad / 256) as i64,
    }
}

/// Day of the week; Sunday is 0.
pub(super) fn j2day(julian: i64) -> i64 {
    (julian + 1).rem_euclid(7)
}

/// `IS_VALID_JULIAN`: whether a day of this month can be converted.
pub(super) fn is_valid_julian(year: i64, month: i64) -> bool {
    const MINYEAR: i64 = -4713;
    const MINMONTH: i64 = 11;
    const MAXYEAR: i64 = 5_874_898;
    const MAXMONTH: i64 = 6;
    (year > MINYEAR || (year == MINYEAR && month >= MINMONTH))
        && (year < MAXYEAR || (year == MAXYEAR && month < MAXMONTH))
}

/// `day_tab`: the days of a month, from 1 to 12.
pub(super) fn days_of_month(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The Monday of the week in which January 4 is.
fn first_week(year: i64) -> i64 {
    let fourth = date2j(Date {
        year,
        month: 1,
        day: 4,
    });
    fourth - j2day(fourth - 1)
}

/// Year and number of the ISO week.
pub(super) fn isoweek(julian: i64) -> (i64, i64) {
    let mut year = j2date(julian).year;
    let mut monday = first_week(year);
    if julian < monday {
        year -= 1;
        monday = first_week(year);
    }
    let week = (julian - monday) / 7 + 1;
    if week >= 52 {
        let next = first_week(year + 1);
        if julian >= next {
            return (year + 1, (julian - next) / 7 + 1);
        }
    }
    (year, week)
}

/// The Monday of an ISO week.
pub(super) fn isoweek2j(year: i64, week: i64) -> i64 {
    first_week(year) + (week - 1) * 7
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(year: i64, month: i64, day: i64) -> Date {
        Date { year, month, day }
    }

    #[test]
    fn known_days() {
        for (day, julian) in [
            (date(1970, 1, 1), UNIX_EPOCH_JDATE),
            (date(2000, 1, 1), 2_451_545),
            (date(-4713, 11, 24), 0),
            (date(294_277, 1, 1), TIMESTAMP_END_JULIAN),
            (date(5_874_898, 1, 1), DATE_END_JULIAN),
        ] {
            assert_eq!(date2j(day), julian);
            assert_eq!(j2date(julian), day);
        }
    }

    #[test]
    fn every_day_of_some_centuries_comes_back() {
        let mut expected = date(-101, 1, 1);
        let first = date2j(expected);
        for julian in first..first + 2_300 * 366 {
            assert_eq!(j2date(julian), expected);
            assert_eq!(date2j(expected), julian);
            expected.day += 1;
            if expected.day > days_of_month(expected.year, expected.month) {
                expected.day = 1;
                expected.month += 1;
            }
            if expected.month > 12 {
                expected.month = 1;
                expected.year += 1;
            }
        }
    }

    // date.out: extract(week …), extract(isoyear …)
    #[test]
    fn weeks() {
        for (day, week) in [
            (date(2020, 8, 11), (2020, 33)),
            (date(2004, 12, 31), (2004, 53)),
            (date(2005, 1, 1), (2004, 53)),
            (date(2005, 1, 3), (2005, 1)),
            (date(2006, 1, 1), (2005, 52)),
            (date(2008, 12, 29), (2009, 1)),
            (date(2010, 1, 3), (2009, 53)),
            (date(2012, 1, 1), (2011, 52)),
        ] {
            let julian = date2j(day);
            assert_eq!(isoweek(julian), week, "{day:?}");
            let monday = isoweek2j(week.0, week.1);
            assert!((monday..monday + 7).contains(&julian));
            assert_eq!(j2day(monday), 1);
        }
    }
}
