//! Standard output and the log on standard error, whose readers may be slow, stopped or gone.
//!
//! Always: nobody waits for a reader of the log. A line that finds no room is lost, and how many were lost is said when
//! there is room again. Neither writer ever fails: to serve matters more than to tell.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// A pipe that says that it has room takes so many bytes without waiting (PIPE_BUF on Linux; elsewhere it is less, and
/// room means more).
const PIECE_BYTES: usize = 4096;

/// How long a reader of standard output may take to make room for what it is told at once: a few lines at the start.
const READER_PATIENCE: Duration = Duration::from_secs(2);

/// Standard output.
#[derive(Debug, Default)]
pub struct Output {
    /// Whoever reads has made no room for too long, or is gone.
    lost: bool,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lost = self.lost || !write_where_room(io::stdout(), bytes, Instant::now() + READER_PATIENCE).1;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Standard error for a log whose lines are one line each, whatever client's text is in them: control characters, with
/// which a text could end its line or colour the next one, are written as `?`.
#[derive(Debug, Clone, Copy)]
pub struct OneLine;

/// What could not be written since something could.
struct Lost {
    lines: u64,
    /// The last line that was written ends in the middle.
    cut: bool,
}

static LOST: Mutex<Lost> = Mutex::new(Lost { lines: 0, cut: false });

impl Write for OneLine {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let (text, end) = match event.split_last() {
            Some((b'\n', text)) => (text, &b"\n"[..]),
            _ => (event, &b""[..]),
        };
        if !text.iter().any(u8::is_ascii_control) {
            log_line(event);
        } else {
            let clean: Vec<u8> = text.iter().map(|b| if b.is_ascii_control() { b'?' } else { *b }).collect();
            log_line(&[&clean, end].concat());
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn log_line(line: &[u8]) {
    let mut lost = LOST.lock().unwrap_or_else(PoisonError::into_inner);
    if lost.lines > 0 {
        // An object of JSON, as the lines around it may be.
        let told = format!(
            "{}{{\"level\":\"WARN\",\"message\":\"{} lines of the log were lost: nobody read them\"}}\n",
            if lost.cut { "\n" } else { "" },
            lost.lines
        );
        if !write_where_room(io::stderr(), told.as_bytes(), Instant::now()).1 {
            lost.lines += 1;
            return;
        }
        *lost = Lost { lines: 0, cut: false };
    }
    let (written, whole) = write_where_room(io::stderr(), line, Instant::now());
    if !whole {
        *lost = Lost { lines: 1, cut: written > 0 };
    }
}

/// Writes as much as there is room for, waiting until then for more of it. Tells how many bytes were written and
/// whether those are all.
fn write_where_room(sink: impl AsFd, bytes: &[u8], until: Instant) -> (usize, bool) {
    let mut left = bytes;
    while !left.is_empty() && has_room(&sink, until) {
        // Past the standard library's buffers, so that a write is as long as it seems.
        match rustix::io::write(&sink, &left[..left.len().min(PIECE_BYTES)]) {
            Ok(written) => left = &left[written..],
            Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }
    (bytes.len() - left.len(), left.is_empty())
}

fn has_room(sink: &impl AsFd, until: Instant) -> bool {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let mut asked = [PollFd::new(sink, PollFlags::OUT)];
        let time = Timespec::try_from(left).unwrap_or_default();
        match poll(&mut asked, Some(&time)) {
            Ok(_) => return asked[0].revents().contains(PollFlags::OUT),
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_finds_no_room_is_not_waited_for() {
        let (mut reader, writer) = io::pipe().unwrap();
        let line = [b'x'; 1000];
        let mut written = 0;
        while write_where_room(&writer, &line, Instant::now()).1 {
            written += line.len();
            assert!(written < 16 << 20, "a pipe without end");
        }
        let begun = Instant::now();
        assert!(!write_where_room(&writer, &line, begun + Duration::from_millis(50)).1);
        assert!(begun.elapsed() >= Duration::from_millis(50));
        let mut read = vec![0; written];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(write_where_room(&writer, &[b'y'; 10_000], Instant::now()), (10_000, true));
        drop(reader);
        assert_eq!(write_where_room(&writer, &line, Instant::now()), (0, false));
    }
}
