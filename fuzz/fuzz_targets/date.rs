//! Dates and windows: what is read is spelled as it was, no window is longer than seven days, and what a
//! refusal offers instead is taken.

#![no_main]

use kore_gateway::routes::date::{Date, LONGEST_WINDOW, Refused, Window, row_time, to_utc, utc};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str, i32)| {
    let (start, end, offset) = input;
    for text in [start, end] {
        let _ = (row_time(text, offset), utc(text));
    }
    let dates = (Date::parse(start), Date::parse(end));
    for (date, text) in [(dates.0, start), (dates.1, end)] {
        let Some(date) = date else { continue };
        assert_eq!(date.to_string(), text);
        assert!(date.start() <= date.end());
        let _ = to_utc(date.start(), offset);
    }
    let (Some(start), Some(end)) = dates else { return };
    let window = Window { start, end };
    match window.check() {
        Ok(()) => {
            let canonical = window.canonical();
            assert_eq!(canonical.canonical(), canonical);
            assert_eq!(canonical.check(), Ok(()));
            assert_eq!((canonical.start.start(), canonical.end), (start.start(), end));
            let length = end.end().duration_since(start.start());
            assert!(!length.is_negative() && length <= LONGEST_WINDOW);
        }
        Err(Refused::EndsBeforeItStarts) => assert!(end.start() < start.start()),
        Err(Refused::TooLong { length, last_end }) => {
            assert!(length > LONGEST_WINDOW);
            assert_eq!(Window { start, end: last_end }.check(), Ok(()));
        }
    }
});
