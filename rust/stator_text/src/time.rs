//! strftime_now(): a point in time in UTC, by the directives of C's strftime in the C locale.

use std::fmt::Write;

const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

struct Civil {
    year: i64,
    month: usize,
    day: i64,
    yearday: i64,
    weekday: usize,
    hour: i64,
    minute: i64,
    second: i64,
}

/// Years are limited to -9999 to 9999, which every template's reader can bear.
fn civil(unix_seconds: i64) -> Civil {
    let clamped = unix_seconds.clamp(-377_705_116_800, 253_402_300_799);
    let (days, seconds) = (clamped.div_euclid(86_400), clamped.rem_euclid(86_400));
    let mut year = 1970 + days.div_euclid(366);
    while days >= first_day(year + 1) {
        year += 1;
    }
    let yearday = days - first_day(year);
    let mut month = 0;
    let mut day = yearday;
    while day >= month_length(year, month) {
        day -= month_length(year, month);
        month += 1;
    }
    Civil {
        year,
        month,
        day: day + 1,
        yearday: yearday + 1,
        weekday: (days + 4).rem_euclid(7) as usize,
        hour: seconds / 3600,
        minute: seconds / 60 % 60,
        second: seconds % 60,
    }
}

/// Days from 1970-01-01 to the first of January.
fn first_day(year: i64) -> i64 {
    let y = year - 1;
    let leap_days = |y: i64| y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400);
    (year - 1970) * 365 + leap_days(y) - leap_days(1969)
}

fn is_leap(year: i64) -> bool {
    year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0)
}

fn month_length(year: i64, month: usize) -> i64 {
    match month {
        1 if is_leap(year) => 29,
        1 => 28,
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

pub fn strftime(unix_seconds: i64, format: &str) -> String {
    let time = civil(unix_seconds);
    let mut out = String::new();
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match rest.next() {
            Some('-') => match rest.next() {
                Some(directive) => {
                    let mut padded = String::new();
                    append(&mut padded, &time, unix_seconds, directive);
                    let bare = padded.trim_start_matches(['0', ' ']);
                    out.push_str(if bare.is_empty() { "0" } else { bare });
                }
                None => out.push_str("%-"),
            },
            Some(directive) => append(&mut out, &time, unix_seconds, directive),
            None => out.push('%'),
        }
    }
    out
}

fn append(out: &mut String, t: &Civil, unix_seconds: i64, directive: char) {
    let hour12 = (t.hour + 11) % 12 + 1;
    // Writing to a String can't fail.
    let _ = match directive {
        'Y' => write!(out, "{}", t.year),
        'C' => write!(out, "{:02}", t.year.div_euclid(100)),
        'y' => write!(out, "{:02}", t.year.rem_euclid(100)),
        'm' => write!(out, "{:02}", t.month + 1),
        'd' => write!(out, "{:02}", t.day),
        'e' => write!(out, "{:2}", t.day),
        'j' => write!(out, "{:03}", t.yearday),
        'H' => write!(out, "{:02}", t.hour),
        'I' => write!(out, "{hour12:02}"),
        'M' => write!(out, "{:02}", t.minute),
        'S' => write!(out, "{:02}", t.second),
        'f' => write!(out, "000000"),
        'p' => write!(out, "{}", if t.hour < 12 { "AM" } else { "PM" }),
        'A' => write!(out, "{}", DAYS[t.weekday]),
        'a' => write!(out, "{}", &DAYS[t.weekday][..3]),
        'B' => write!(out, "{}", MONTHS[t.month]),
        'b' | 'h' => write!(out, "{}", &MONTHS[t.month][..3]),
        'w' => write!(out, "{}", t.weekday),
        'u' => write!(out, "{}", (t.weekday + 6) % 7 + 1),
        's' => write!(out, "{unix_seconds}"),
        'z' => write!(out, "+0000"),
        'Z' => write!(out, "UTC"),
        'n' => write!(out, "\n"),
        't' => write!(out, "\t"),
        '%' => write!(out, "%"),
        'F' => return composed(out, t, unix_seconds, "Y-m-d"),
        'T' | 'X' => return composed(out, t, unix_seconds, "H:M:S"),
        'R' => return composed(out, t, unix_seconds, "H:M"),
        'D' | 'x' => return composed(out, t, unix_seconds, "m/d/y"),
        'c' => return composed(out, t, unix_seconds, "a b e H:M:S Y"),
        'r' => return composed(out, t, unix_seconds, "I:M:S p"),
        other => write!(out, "%{other}"),
    };
}

fn composed(out: &mut String, time: &Civil, unix_seconds: i64, pattern: &str) {
    for c in pattern.chars() {
        if c.is_ascii_alphabetic() {
            append(out, time, unix_seconds, c);
        } else {
            out.push(c);
        }
    }
}
