//! QEMU's monitor (QMP), by which disks are plugged in, grown and pulled out.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// QEMU answers at once; a guest lets go of a disk within seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// A connection to a monitor.
#[derive(Debug)]
pub struct Monitor {
    commands: UnixStream,
    answers: BufReader<UnixStream>,
    /// Events that came while an answer was awaited.
    events: Vec<Value>,
}

impl Monitor {
    /// Connects to the socket that QEMU was told of.
    pub fn connect(socket: &Path) -> Self {
        let commands = UnixStream::connect(socket).unwrap_or_else(|e| panic!("{}: {e}", socket.display()));
        commands.set_read_timeout(Some(PATIENCE)).expect("a socket has time-outs");
        let answers = BufReader::new(commands.try_clone().expect("a second handle of a socket"));
        let mut monitor = Self { commands, answers, events: Vec::new() };
        assert!(monitor.read().get("QMP").is_some(), "it greets");
        monitor.run("qmp_capabilities", json!({}));
        monitor
    }

    /// Runs a command, which must succeed.
    pub fn run(&mut self, command: &str, arguments: Value) {
        let line = json!({ "execute": command, "arguments": arguments });
        writeln!(self.commands, "{line}").unwrap_or_else(|e| panic!("the monitor is gone: {e}"));
        loop {
            let answer = self.read();
            if answer.get("event").is_some() {
                self.events.push(answer);
            } else {
                assert!(answer.get("return").is_some(), "{line}: {answer}");
                return;
            }
        }
    }

    /// Plugs in a virtio disk over the raw file at `path`, which the guest knows as `virtio-NAME`.
    pub fn plug(&mut self, name: &str, path: &Path) {
        self.run("blockdev-add", json!({ "driver": "file", "node-name": name, "filename": path }));
        let device = json!({ "driver": "virtio-blk-pci", "id": name, "drive": name, "serial": name });
        self.run("device_add", device);
    }

    /// Gives a disk another size.
    pub fn resize(&mut self, name: &str, bytes: u64) {
        self.run("block_resize", json!({ "node-name": name, "size": bytes }));
    }

    /// Pulls a disk out, and waits until the guest has let go of it.
    pub fn unplug(&mut self, name: &str) {
        self.run("device_del", json!({ "id": name }));
        let gone = |event: &Value| event["event"] == "DEVICE_DELETED" && event["data"]["device"] == name;
        while !self.events.iter().any(gone) {
            let event = self.read();
            self.events.push(event);
        }
        self.events.clear();
        self.run("blockdev-del", json!({ "node-name": name }));
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line);
        assert!(matches!(read, Ok(1..)), "the monitor says nothing ({read:?})");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("the monitor said `{line}`: {e}"))
    }
}
