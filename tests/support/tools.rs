//! Tools of the operating system that make faults. Where one is missing, the test that needs it says so and is over;
//! with `RAFTKV_REQUIRE_TOOLS=1` it fails instead.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::process::{server, through};

/// Whether a fault can be made here. `probe` is a command that succeeds if so.
pub fn have(test: &str, tool: &str, probe: &mut Command) -> bool {
    let works = probe.stdin(Stdio::null()).output().is_ok_and(|output| output.status.success());
    if !works {
        unusable(test, tool, "its trial failed");
    }
    works
}

/// Says that a test is skipped because a tool does not work here, and why; or fails it.
pub fn unusable(test: &str, tool: &str, why: &str) {
    assert!(std::env::var_os("RAFTKV_REQUIRE_TOOLS").is_none(), "{test} needs {tool}, which does not work here: {why}");
    println!("SKIPPED {test}: {tool} does not work here: {why}");
}

/// Whether strace can trace.
pub fn have_strace(test: &str) -> bool {
    have(test, "strace", Command::new("strace").args(["-D", "-f", "-qq", "-e", "trace=fdatasync", "true"]))
}

/// The server under strace, which does this to the system call, as in `("fdatasync", "error=EIO:when=7+")`. The process
/// that is started is the server itself, the tracer its grandchild. Counts are per thread. A signal without the `+` at
/// the end, or with strace's filter in the kernel, comes at other calls than it should.
pub fn server_with_fault(syscall: &str, fault: &str) -> Command {
    with_fault(Command::new("strace"), syscall, fault)
}

/// The same for calls that have to do with one file only.
pub fn server_with_fault_of(file: &Path, syscall: &str, fault: &str) -> Command {
    let mut command = Command::new("strace");
    command.arg("-P").arg(file);
    with_fault(command, syscall, fault)
}

fn with_fault(mut command: Command, syscall: &str, fault: &str) -> Command {
    command.args(["-D", "-f", "-qq", "-o", "/dev/null"]);
    command.arg(format!("--trace={syscall}")).arg(format!("--inject={syscall}:{fault}"));
    through(command, &server())
}

/// A small file system of its own, on a file. Unmounted when this is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    mounted_at: PathBuf,
}

impl SmallDisk {
    /// Makes one of so many MiB in `dir`; `None` if that is not possible here.
    pub fn mount(test: &str, dir: &Path, mib: u64) -> Option<SmallDisk> {
        let (image, mounted_at) = (dir.join("disk.img"), dir.join("disk"));
        fs::create_dir(&mounted_at).expect("a directory can be made");
        File::create(&image).and_then(|file| file.set_len(mib << 20)).expect("a file can be made");
        let mkfs = ["-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
        let usable = have(test, "mkfs.ext4", Command::new("mkfs.ext4").args(mkfs).arg(&image))
            && have(test, "a loop mount", Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mounted_at));
        usable.then_some(SmallDisk { mounted_at })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mounted_at
    }

    /// Fills it to the last byte.
    pub fn fill(&self) {
        let mut ballast = File::options().create(true).append(true).open(self.ballast()).expect("a file can be opened");
        // Ever smaller, as each is synced: to the last byte in some dozens of steps.
        for piece in [1 << 20, 64 << 10, 4 << 10, 256, 16, 1] {
            let piece = vec![0xb5; piece];
            while ballast.write_all(&piece).and_then(|()| ballast.sync_data()).is_ok() {}
        }
    }

    /// Takes away what [`SmallDisk::fill`] has put there.
    pub fn make_room(&self) {
        fs::remove_file(self.ballast()).expect("the ballast is there");
    }

    /// Whether anything may be written from now on. Nobody may be writing.
    pub fn set_writable(&self, writable: bool) {
        let mode = if writable { "remount,rw" } else { "remount,ro" };
        let done = Command::new("mount").args(["-o", mode]).arg(&self.mounted_at).status();
        assert!(done.is_ok_and(|status| status.success()), "the disk is mounted with {mode}");
    }

    fn ballast(&self) -> PathBuf {
        self.mounted_at.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, as a process that was just killed may hold files for another moment.
        let unmounted: std::io::Result<Output> = Command::new("umount").arg("-l").arg(&self.mounted_at).output();
        if let Err(error) = unmounted {
            eprintln!("cannot unmount {}: {error}", self.mounted_at.display());
        }
    }
}
