use std::time::Duration;

use super::*;

const GRACE: Duration = Duration::from_secs(5);

fn processes(data: &Path) -> Processes {
    // `env` becomes the program, as the real launcher does.
    Processes::with_launcher(data, vec!["/usr/bin/env".into()])
}

fn shell(processes: &Processes, name: &str, script: &str) -> Started {
    processes.start(name, Path::new("/bin/sh"), &["-c".to_owned(), script.to_owned()]).unwrap()
}

async fn wait_for_log(processes: &Processes, name: &str, text: &str) {
    let start = Instant::now();
    while !processes.log_tail(name, 0, 10).contains(text) {
        assert!(start.elapsed() < GRACE, "{text} was never written");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

#[tokio::test]
async fn a_process_runs_writes_its_log_and_stops_cleanly() {
    let data = tempfile::tempdir().unwrap();
    let processes = processes(data.path());
    let _started = shell(&processes, "dummy", "trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done");
    wait_for_log(&processes, "dummy", "ready").await;
    assert!(processes.running("dummy").is_some());
    assert_eq!(processes.stop("dummy", GRACE).await.unwrap(), Stopped::Cleanly);
    assert!(processes.running("dummy").is_none());
    assert_eq!(processes.stop("dummy", GRACE).await.unwrap(), Stopped::WasNotRunning);
}

#[tokio::test]
async fn a_process_that_ignores_sigterm_is_killed() {
    let data = tempfile::tempdir().unwrap();
    let processes = processes(data.path());
    let _started = shell(&processes, "deaf", "trap '' TERM; echo ready; while :; do sleep 0.01; done");
    wait_for_log(&processes, "deaf", "ready").await;
    let stopped = processes.stop("deaf", Duration::from_millis(50)).await.unwrap();
    assert_eq!(stopped, Stopped::Killed);
    assert!(processes.running("deaf").is_none());
}

#[tokio::test]
async fn a_recycled_pid_is_left_alone() {
    let data = tempfile::tempdir().unwrap();
    let processes = processes(data.path());
    let mut innocent = shell(&processes, "innocent", "exec sleep 60");
    let mut record = processes.running("innocent").unwrap();
    record.identity.started_ticks += 1;
    let text = serde_json::to_vec(&record).unwrap();
    crate::files::write_atomically(&processes.record_path("victim"), &text, false).unwrap();

    assert!(processes.running("victim").is_none());
    assert_eq!(processes.stop("victim", GRACE).await.unwrap(), Stopped::WasNotRunning);
    assert_eq!(innocent.exited(), None);
    processes.stop("innocent", GRACE).await.unwrap();
}

#[tokio::test]
async fn a_process_that_ends_at_once_is_noticed_with_its_log() {
    let data = tempfile::tempdir().unwrap();
    let processes = processes(data.path());
    let mut started = shell(&processes, "broken", "echo 'error: no such key' >&2; exit 3");
    wait_for_log(&processes, "broken", "no such key").await;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = started.exited() {
            break status;
        }
        assert!(start.elapsed() < GRACE);
        tokio::time::sleep(POLL_INTERVAL).await;
    };
    assert!(status.contains('3'), "{status}");
    assert!(processes.running("broken").is_none());
}

#[test]
fn a_program_that_does_not_exist_is_an_error_and_leaves_no_record() {
    let data = tempfile::tempdir().unwrap();
    let processes = Processes::with_launcher(data.path(), vec!["/does/not/exist".into()]);
    assert!(processes.start("ghost", Path::new("/bin/true"), &[]).is_err());
    assert!(processes.names().is_empty());
}
