//! Times of cron, as CronJobs have them (Kubernetes, "Schedule syntax"; crontab(5)).

/// Minutes, hours, days of the month, months, days of the week: a bit for each value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cron {
    fields: [u64; 5],
    /// Whether days of the month, days of the week are any.
    any: [bool; 2],
}

/// Lowest and highest value of each field; a week's last day is its first as well.
const BOUNDS: [(u32, u32); 5] = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)];
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl std::str::FromStr for Cron {
    type Err = String;

    fn from_str(text: &str) -> Result<Cron, String> {
        let expanded = expand(text.trim());
        let words: Vec<&str> = expanded.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = words[..] else {
            return Err(format!("`{text}` does not have the five fields of cron"));
        };
        let mut fields = [0; 5];
        for (nth, word) in [minutes, hours, days, months, weekdays].into_iter().enumerate() {
            fields[nth] =
                field(word, nth).ok_or_else(|| format!("`{word}` in `{text}` is no time"))?;
        }
        if fields[4] & 1 << 7 != 0 {
            fields[4] = fields[4] & !(1 << 7) | 1;
        }
        // For Kubernetes `*/2` is a bound.
        let star = |part: &str| matches!(part, "*" | "?" | "*/1" | "?/1");
        let any = [days, weekdays].map(|word| word.split(',').any(star));
        Ok(Cron { fields, any })
    }
}

/// Five fields for a word that stands for them.
fn expand(text: &str) -> &str {
    match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        other => other,
    }
}

/// The values of a field: a list of ranges with steps.
fn field(word: &str, nth: usize) -> Option<u64> {
    let (low, high) = BOUNDS[nth];
    let mut found = 0;
    for part in word.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step.parse().ok().filter(|step| *step > 0)?)),
            None => (part, None),
        };
        let (first, last) = match range.split_once('-') {
            _ if matches!(range, "*" | "?") => (low, if nth == 4 { 6 } else { high }),
            Some((first, last)) => (value(first, nth)?, value(last, nth)?),
            // From there on, if there is a step.
            None if step.is_some() => (value(range, nth)?, if nth == 4 { 6 } else { high }),
            None => (value(range, nth)?, value(range, nth)?),
        };
        if first > last {
            return None;
        }
        for value in (first..=last).step_by(step.unwrap_or(1)) {
            found |= 1 << value;
        }
    }
    Some(found)
}

/// A number within its bounds, or a name.
fn value(text: &str, nth: usize) -> Option<u32> {
    let lower = text.to_ascii_lowercase();
    let named = |names: &[&str]| names.iter().position(|name| *name == lower);
    let found = match nth {
        3 => named(&MONTHS).map(|at| at + 1),
        4 => named(&DAYS),
        _ => None,
    };
    let number = match found {
        Some(number) => u32::try_from(number).ok()?,
        None if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok()?,
        None => return None,
    };
    let (low, high) = BOUNDS[nth];
    (low..=high).contains(&number).then_some(number)
}

impl Cron {
    /// The same in systemd's words (systemd.time(7), "Calendar Events"). Two, of which either counts,
    /// if both kinds of days are bounded: for cron a day is one if either says so.
    pub fn calendar(&self, time_zone: &str) -> Vec<String> {
        let [minutes, hours, days, months, weekdays] = self.fields;
        let list = |set: u64, nth: usize| {
            let (low, high) = BOUNDS[nth];
            let all: Vec<u32> = (low..=high).filter(|value| set & 1 << value != 0).collect();
            match all.len() as u32 == high - low + 1 {
                true => "*".to_owned(),
                false => {
                    all.iter().map(|value| format!("{value:02}")).collect::<Vec<_>>().join(",")
                }
            }
        };
        let names: Vec<&str> = DAYS
            .into_iter()
            .enumerate()
            .filter(|(at, _)| weekdays & 1 << at != 0)
            .map(|d| d.1)
            .collect();
        let week = if names.len() == 7 { String::new() } else { names.join(",") + " " };
        let rest = format!("{}:{}:00 {time_zone}", list(hours, 1), list(minutes, 0));
        let line = |week: &str, days: &str| format!("{week}*-{}-{days} {rest}", list(months, 3));
        match self.any {
            [false, false] => vec![line("", &list(days, 2)), line(&week, "*")],
            _ => vec![line(&week, &list(days, 2))],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calendar(text: &str) -> Vec<String> {
        text.parse::<Cron>().unwrap().calendar("UTC")
    }

    #[test]
    fn times_of_cron_are_systemds() {
        for (cron, expected) in [
            ("0 3 * * *", &["*-*-* 03:00:00 UTC"][..]),
            ("*/20 8-10 * * MON-FRI", &["mon,tue,wed,thu,fri *-*-* 08,09,10:00,20,40:00 UTC"]),
            ("5,10 0 1 jan,7 *", &["*-01,07-01 00:05,10:00 UTC"]),
            ("0 0 13 * 5", &["*-*-13 00:00:00 UTC", "fri *-*-* 00:00:00 UTC"]),
            ("0 0 * * 7", &["sun *-*-* 00:00:00 UTC"]),
            ("30/15 * ? * ?", &["*-*-* *:30,45:00 UTC"]),
            ("@weekly", &["sun *-*-* 00:00:00 UTC"]),
            ("0 12 */15 * *", &["*-*-01,16,31 12:00:00 UTC"]),
        ] {
            assert_eq!(calendar(cron), expected, "{cron}");
            for line in calendar(cron) {
                let checked = std::process::Command::new("systemd-analyze")
                    .args(["calendar", &line])
                    .output();
                match checked {
                    Ok(output) => assert!(output.status.success(), "{line}"),
                    Err(_) => eprintln!("SKIPPED: no systemd-analyze"),
                }
            }
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "5-1 * * * *",
            "*/0 * * * *",
            "a * * * *",
            "1-2-3 * * * *",
            "+1 * * * *",
            "@reboot",
            "1,,2 * * * *",
        ] {
            assert!(text.parse::<Cron>().is_err(), "{text}");
        }
    }
}
