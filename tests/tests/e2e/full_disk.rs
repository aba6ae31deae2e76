//! A disk without room.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use quorate_tests::{Cluster, SETTLE, http, skip, wait_until};
use tempfile::TempDir;

/// A small file system in memory, mounted as long as the value lives.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// Nothing where the test may not mount, with the reason.
    fn mount(mebibytes: u32) -> Result<SmallDisk, String> {
        let directory = tempfile::Builder::new()
            .prefix("quorate-disk-")
            .tempdir()
            .expect("a directory to mount at");
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"])
            .arg(directory.path())
            .output()
            .map_err(|error| format!("mount: {error}"))?;
        if output.status.success() {
            Ok(SmallDisk(directory))
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut file = File::create(self.path().join("filler")).expect("a file");
        for length in [1 << 20, 4 << 10, 1] {
            let zeros = vec![0; length];
            while file.write_all(&zeros).is_ok() {}
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.path().join("filler")).expect("the file goes");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

#[test]
fn node_with_a_full_disk_steps_down_exits_with_a_message_and_resumes_when_there_is_room() {
    let disk = match SmallDisk::mount(96) {
        Ok(disk) => disk,
        Err(why) => return skip(&format!("cannot mount a small file system: {why}")),
    };
    let mut cluster = Cluster::listed(3);
    cluster.nodes[0].data = disk.path().join("data");
    cluster.start_all();
    cluster.wait_until_ready();
    // The node with the small disk leads.
    wait_until(SETTLE, "node 1 leads", || {
        let leader = cluster.leader();
        let body = br#"{"target_node": 1}"#;
        leader == 0
            || cluster.nodes[leader]
                .request("POST", "/cluster/step-down", body)
                .is_err()
    });
    cluster.nodes[1].put("before", "the disk was full");
    let mark = cluster.nodes[0].log_mark();
    disk.fill();

    // Values large enough to need a new segment of the log soon; few keys, so that the state stays small.
    let value = vec![b'x'; 256 << 10];
    let mut client = http::Client::new(cluster.nodes[1].client_address());
    let mut acknowledged = Vec::new();
    let mut number = 0;
    wait_until(SETTLE, "the node on the full disk gives up", || {
        number += 1;
        let key = format!("large/{}", number % 16);
        let path = format!("/v1/kv/{key}");
        if client
            .send("PUT", &path, &[], &value)
            .is_ok_and(|answer| answer.status == 200)
        {
            acknowledged.push(key);
        }
        cluster.nodes[0].log()[mark..].contains("ERROR")
    });
    let status = cluster.nodes[0].wait_for_end();
    assert!(!status.success());
    let log = cluster.nodes[0].log()[mark..].to_owned();
    for words in [
        "no space left on the device",
        "free some space",
        &disk.path().display().to_string(),
    ] {
        assert!(log.contains(words), "`{words}` is missing in:\n{log}");
    }

    // The others go on.
    assert_ne!(cluster.leader(), 0);
    cluster.nodes[2].put("during", "the disk was full");

    disk.make_room();
    cluster.nodes[0].start();
    cluster.wait_until_ready();
    let everything = cluster.wait_until_equal();
    assert!(everything.contains_key("before") && everything.contains_key("during"));
    assert!(acknowledged.iter().all(|key| everything.contains_key(key)));
    cluster.kill_all();
}
