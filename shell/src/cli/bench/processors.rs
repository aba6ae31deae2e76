//! How busy servers on this machine keep its processors, as the system tells.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How many processors each process keeps busy between two times; those that the system does not know are left out.
pub(super) async fn used(processes: Vec<u32>, begin: Instant, end: Instant) -> Vec<(u32, f64)> {
    sleep_until(begin).await;
    let (before, since) = (times(&processes), Instant::now());
    sleep_until(end).await;
    let seconds = since.elapsed().as_secs_f64();
    let after = times(&processes);
    processes
        .into_iter()
        .zip(before.into_iter().zip(after))
        .filter_map(|(process, (before, after))| {
            Some((process, after?.saturating_sub(before?).as_secs_f64() / seconds))
        })
        .collect()
}

fn times(processes: &[u32]) -> Vec<Option<Duration>> {
    processes.iter().map(|process| time(*process)).collect()
}

/// How long the processors have worked for a process, also for its threads that have ended (proc(5), fields 14 and 15 of
/// `stat`).
fn time(process: u32) -> Option<Duration> {
    /// Linux tells programs the time in hundredths of a second, on every architecture.
    const TICK: Duration = Duration::from_millis(10);
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field, the name, may hold anything, and ends with the last bracket.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut field = || fields.next()?.parse::<u32>().ok();
    let (user, system) = (field()?, field()?);
    Some(TICK * user + TICK * system)
}

/// One line a process, and their sum; nothing when there is none.
pub(super) fn text(used: &[(u32, f64)]) -> String {
    let mut text = String::new();
    for (process, processors) in used {
        text.push_str(&format!(
            "  process {process:<8}  {processors:.3} of a processor\n"
        ));
    }
    if used.len() > 1 {
        let sum: f64 = used.iter().map(|(_, processors)| processors).sum();
        text.push_str(&format!("  all servers       {sum:.3} of a processor\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_an_own_process_is_known_and_of_no_process_is_not() {
        assert!(time(std::process::id()).is_some());
        assert_eq!(time(u32::MAX), None);
    }

    #[test]
    fn several_processes_are_added_up() {
        assert_eq!(text(&[]), "");
        assert_eq!(text(&[(7, 0.5)]), "  process 7         0.500 of a processor\n");
        assert!(text(&[(7, 0.5), (8, 0.25)]).ends_with("  all servers       0.750 of a processor\n"));
    }
}
