//! How figures, moments and tables read on a terminal.
//!
//! Always: plain text without colours, so that it reads the same in a file.

use comfy_table::{CellAlignment, Table, presets};

/// A figure above it stands for infinity, which JSON does not have; see `GuardReading` in the control API.
const CAPPED: f64 = 1e300;

/// Columns under a heading each, two spaces apart, without lines; every line ends with a newline. The columns whose
/// heading begins with '>' (which is not shown) are numbers and stand to the right.
pub fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(headings.iter().map(|heading| heading.trim_start_matches('>')));
    table.add_rows(rows);
    for (at, heading) in headings.iter().enumerate() {
        let column = table.column_mut(at).expect("every heading is a column");
        column.set_padding((0, 2));
        if heading.starts_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt() + "\n"
}

/// Three significant digits: `0.00123`, `4.57`, `1230`, `4.1e9`.
pub fn figure(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        return "0".to_owned();
    }
    if size >= CAPPED || !value.is_finite() {
        return if value > 0.0 { "infinite" } else { "-infinite" }.to_owned();
    }
    if !(1e-4..1e6).contains(&size) {
        return format!("{value:.1e}");
    }
    let decimals = (2 - size.log10().floor() as i32).max(0) as usize;
    without_zeros(format!("{value:.decimals$}"))
}

/// A share in percent, to a hundredth: `12.5 %`. What is not quite nothing or all does not read as that.
pub fn percent(value: f64) -> String {
    match value {
        v if v > 0.0 && v < 0.01 => "<0.01 %".to_owned(),
        v if v < 100.0 && v > 99.99 => ">99.99 %".to_owned(),
        v => format!("{} %", without_zeros(format!("{v:.2}"))),
    }
}

fn without_zeros(number: String) -> String {
    if !number.contains('.') {
        return number;
    }
    number.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A count and its noun: `1 request`, `12,000 requests`.
pub fn counted(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// Digits in threes: `12,000`.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A dash where there is nothing to tell.
pub fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

/// At most `characters` of a text; a longer one ends in `…`.
pub fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        None => text.to_owned(),
        Some(_) => text.chars().take(characters.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// A moment in UTC, to the second: `2026-03-01 09:05:00`. `at_ms` counts from the epoch; 0 is a dash.
pub fn moment(at_ms: u64) -> String {
    if at_ms == 0 {
        return "-".to_owned();
    }
    let seconds = at_ms / 1000;
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// Year, month and day of a day since the epoch.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`; years begin in March,
/// so that the leap day is the last of its year.
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_significant_digits() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (4.567, "4.57"),
            (0.001234, "0.00123"),
            (12.34, "12.3"),
            (1234.5, "1234"),
            (999.9, "1000"),
            (-0.5, "-0.5"),
            (4.1e9, "4.1e9"),
            (0.00001, "1.0e-5"),
            (1e300, "infinite"),
            (f64::INFINITY, "infinite"),
        ] {
            assert_eq!(figure(value), text, "{value}");
        }
    }

    #[test]
    fn nearly_all_and_nearly_nothing_do_not_read_as_all_and_nothing() {
        for (value, text) in [
            (0.0, "0 %"),
            (0.001, "<0.01 %"),
            (12.5, "12.5 %"),
            (99.995, ">99.99 %"),
            (100.0, "100 %"),
            (-3.0, "-3 %"),
            (33.333, "33.33 %"),
        ] {
            assert_eq!(percent(value), text, "{value}");
        }
    }

    #[test]
    fn counts_are_grouped_in_threes() {
        for (count, text) in [(0, "0 rows"), (1, "1 row"), (999, "999 rows"), (1000, "1,000 rows")] {
            assert_eq!(counted(count, "row"), text);
        }
        assert_eq!(grouped(12_345_678), "12,345,678");
    }

    #[test]
    fn moments_are_those_of_the_calendar() {
        // What `date -u -d @N` says.
        for (seconds, text) in [
            (1, "1970-01-01 00:00:01"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_709_164_800, "2024-02-29 00:00:00"),
            (1_735_689_599, "2024-12-31 23:59:59"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(moment(seconds * 1000 + 999), text);
        }
        assert_eq!(moment(0), "-");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(cut("weiß", 4), "weiß");
        assert_eq!(cut("weißer", 4), "wei…");
    }

    #[test]
    fn tables_are_aligned_and_end_without_spaces() {
        let rows = [
            vec!["digits".to_owned(), "1".to_owned(), "a".to_owned()],
            vec!["x".to_owned(), "20".to_owned(), String::new()],
        ];
        assert_eq!(
            table(&["MODEL", ">VERSION", "LABELS"], rows),
            "MODEL   VERSION  LABELS\ndigits        1  a\nx            20\n"
        );
    }
}
