//! Opens files that others name or bring, and nothing outside the folder that they must lie in.
//!
//! Always: what is opened is a regular file with one name, of bounded size, below a folder that is trusted; no link is
//! followed on the way there, neither one that was there nor one that somebody puts there meanwhile; nothing blocks,
//! whatever lies there. Public texts name no path. A file of the server's own ([`open_own`]) may have other names.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, openat, statat};

/// Why a file is not read. As text it goes after the file's name: "'x' is a link; …".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Outside {
    #[error("leaves its folder; keep the file inside it")]
    Path,
    #[error("is a link; copy it into the repository")]
    Link,
    #[error("is not there")]
    Missing,
    /// A folder, a FIFO, a socket, a device.
    #[error("is no regular file")]
    NotAFile,
    /// It may be a file of somebody else's under a second name.
    #[error("is a hard link: the file has other names; copy it into the repository")]
    HardLink,
    #[error("is larger than {bytes_max} bytes, the most that is read")]
    TooLarge { bytes_max: u64 },
    /// By the system's number for it. Its own words may be more than strangers should see: see [`Outside::in_full`].
    #[error("cannot be read: {}", io::Error::from_raw_os_error(*.0).kind())]
    Unreadable(i32),
}

impl Outside {
    /// As text, with what the system says: for the log.
    pub fn in_full(&self) -> String {
        match self {
            Self::Unreadable(code) => format!("cannot be read: {}", io::Error::from_raw_os_error(*code)),
            other => other.to_string(),
        }
    }

    /// Puts on the log what texts for everybody leave out.
    pub fn tell(&self, path: &Path) {
        if let Self::Unreadable(_) = self {
            tracing::warn!("'{}' {}", path.display(), self.in_full());
        }
    }
}

/// Bytes that are read at a time of a file that is not needed in one piece.
const PIECE_BYTES: usize = 1 << 20;

/// A regular file that may be read.
#[derive(Debug)]
pub struct Opened {
    pub file: File,
    /// Its size when it was opened.
    pub bytes: u64,
    modified: (i64, i64),
}

/// A folder below a trusted one, whose files are opened as [`open`] does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    root: PathBuf,
    below: PathBuf,
}

impl Folder {
    /// `below` is a path of plain names, or empty: the trusted folder itself.
    pub fn new(root: impl Into<PathBuf>, below: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), below: below.into() }
    }

    /// The folder that may be a link.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where it is. Whatever is read by this path may be read through a link; to look at metadata it is good enough.
    pub fn path(&self) -> PathBuf {
        self.root.join(&self.below)
    }

    /// A folder in this one.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> Self {
        Self { root: self.root.clone(), below: self.below.join(name) }
    }

    /// A file by its path in this folder. Errors: see [`Outside`].
    pub fn open(&self, file: &Path, bytes_max: u64) -> Result<Opened, Outside> {
        // Joined to something, an absolute path would stand alone, and an empty one would be the folder.
        if file.as_os_str().is_empty() || file.is_absolute() {
            return Err(Outside::Path);
        }
        open(&self.root, &self.below.join(file), bytes_max)
            .inspect_err(|outside| outside.tell(&self.path().join(file)))
    }

    /// All of a file, as [`Self::open`] and [`Opened::read`] give it. Errors: as text that goes after its name.
    pub fn read(&self, file: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
        let opened = self.open(file, bytes_max).map_err(|outside| outside.to_string())?;
        opened.read().map_err(|error| format!("cannot be read: {error}"))
    }

    /// Whether its place in the folder above is taken by a link.
    pub fn is_link(&self) -> bool {
        std::fs::symlink_metadata(self.path()).is_ok_and(|metadata| metadata.is_symlink())
    }
}

/// Opens `file`, whose components must be plain names, below `root`, which is trusted and may be a link itself.
///
/// Errors: why it is not read; see [`Outside`]. Never blocks, and opens nothing but regular files and folders on the
/// way: opening a device may already do something.
pub fn open(root: &Path, file: &Path, bytes_max: u64) -> Result<Opened, Outside> {
    let mut names = Vec::new();
    for component in file.components() {
        match component {
            Component::Normal(name) => names.push(name),
            _ => return Err(Outside::Path),
        }
    }
    let (last, folders) = names.split_last().ok_or(Outside::Path)?;
    // One folder after the other, each from the one before: nobody can turn the way aside by then, and unlike
    // openat2 it is there on every system.
    let mut folder = openat(CWD, root, FOLDER, Mode::empty()).map_err(refused)?;
    for name in folders {
        folder = openat(&folder, *name, FOLDER | OFlags::NOFOLLOW, Mode::empty())
            .map_err(|error| on_the_way(&folder, name, error))?;
    }
    let before = statat(&folder, *last, AtFlags::SYMLINK_NOFOLLOW).map_err(refused)?;
    if let Some(outside) = no_file(&before) {
        return Err(outside);
    }
    let opened = openat(&folder, *last, FILE, Mode::empty()).map_err(refused)?;
    Opened::new(File::from(opened), bytes_max)
}

/// What a file of the server's own is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// To be read; it must be there.
    Read,
    /// To be locked; it is made, for its owner alone, where it is not there.
    Lock,
}

/// Whether the server's own file `name` is in the folder `root`. Follows no link and opens nothing.
///
/// Errors: something else has its name, and the error says what to do; the folder cannot be looked at.
pub fn is_own(root: &Path, name: &str) -> io::Result<bool> {
    match std::fs::symlink_metadata(root.join(name)) {
        Ok(metadata) if metadata.is_file() => Ok(true),
        Ok(_) => Err(not_own(name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens the server's own file `name` in the folder `root`, which may have other names: a copy of the folder may be
/// made of hard links. Never blocks, and follows no link.
///
/// Errors: as [`is_own`], and it cannot be opened.
pub fn open_own(root: &Path, name: &str, own: Own) -> io::Result<File> {
    is_own(root, name)?;
    let (access, mode) = match own {
        Own::Read => (FILE, Mode::empty()),
        Own::Lock => (FILE | OFlags::RDWR | OFlags::CREATE, Mode::RUSR | Mode::WUSR),
    };
    let file = File::from(openat(CWD, root.join(name), access, mode)?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(not_own(name)),
    }
}

fn not_own(name: &str) -> io::Error {
    io::Error::other(format!("'{name}' is no regular file: move it away"))
}

/// A folder on the way. That it can be searched is enough.
#[cfg(target_os = "linux")]
const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A FIFO that took the file's place since it was looked at would keep an open waiting for its other end.
const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// What is wrong with a name that is no folder.
fn on_the_way(folder: &OwnedFd, name: &std::ffi::OsStr, error: rustix::io::Errno) -> Outside {
    match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| kind(&stat)) {
        Ok(FileType::Symlink) => Outside::Link,
        Ok(FileType::Directory) => refused(error),
        // Below something that is no folder nothing is.
        _ => Outside::Missing,
    }
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn no_file(stat: &Stat) -> Option<Outside> {
    match kind(stat) {
        FileType::RegularFile => None,
        FileType::Symlink => Some(Outside::Link),
        _ => Some(Outside::NotAFile),
    }
}

fn refused(error: rustix::io::Errno) -> Outside {
    use rustix::io::Errno;
    match error {
        Errno::LOOP => Outside::Link,
        Errno::NOENT | Errno::NOTDIR => Outside::Missing,
        // A socket, or a device without a driver.
        Errno::NXIO | Errno::NODEV => Outside::NotAFile,
        error => Outside::Unreadable(error.raw_os_error()),
    }
}

impl Opened {
    fn new(file: File, bytes_max: u64) -> Result<Self, Outside> {
        let metadata =
            file.metadata().map_err(|error| Outside::Unreadable(error.raw_os_error().unwrap_or_default()))?;
        if !metadata.is_file() {
            return Err(Outside::NotAFile);
        }
        if metadata.nlink() > 1 {
            return Err(Outside::HardLink);
        }
        if metadata.len() > bytes_max {
            return Err(Outside::TooLarge { bytes_max });
        }
        Ok(Self { file, bytes: metadata.len(), modified: modified(&metadata) })
    }

    /// The whole file.
    ///
    /// Errors: it cannot be read; it was changed since it was opened. Cost: memory for all of it.
    pub fn read(mut self) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.bytes).map_err(io::Error::other)?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        bytes.resize(length, 0);
        self.read_into(&mut bytes)?;
        Ok(bytes)
    }

    /// Fills `bytes`, which must be as long as the file, with all of it. Errors: as [`Self::read`].
    pub fn read_into(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => changed(),
            _ => error,
        })?;
        let longer = loop {
            match self.file.read(&mut [0]) {
                Ok(more) => break more > 0,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        };
        if longer { Err(changed()) } else { self.unchanged() }
    }

    /// Gives `each` the whole file, piece by piece. Errors: as [`Self::read`], and those of `each`.
    pub fn read_in_pieces(mut self, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut piece = vec![0; PIECE_BYTES];
        let mut left = self.bytes;
        loop {
            let read = match self.file.read(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if read == 0 {
                break;
            }
            left = left.checked_sub(read as u64).ok_or_else(changed)?;
            each(&piece[..read])?;
        }
        if left > 0 { Err(changed()) } else { self.unchanged() }
    }

    /// Errors: the file is not what it was when it was opened.
    pub fn unchanged(&self) -> io::Result<()> {
        let metadata = self.file.metadata()?;
        let same = metadata.len() == self.bytes && modified(&metadata) == self.modified;
        if same { Ok(()) } else { Err(changed()) }
    }
}

fn modified(metadata: &Metadata) -> (i64, i64) {
    (metadata.mtime(), metadata.mtime_nsec())
}

fn changed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it was changed while it was read")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use rustix::io::Errno;

    use super::*;

    fn write(path: PathBuf, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// A trusted folder, itself behind a link, beside what must not be read.
    fn folder() -> (tempfile::TempDir, PathBuf) {
        let top = tempfile::tempdir().unwrap();
        let real = top.path().join("real");
        write(top.path().join("secret"), "secret");
        write(real.join("data"), "data");
        write(real.join("sub/data"), "below");
        symlink("real", top.path().join("root")).unwrap();
        symlink("../secret", real.join("link")).unwrap();
        symlink("data", real.join("alias")).unwrap();
        symlink("sub", real.join("folder-alias")).unwrap();
        symlink("nowhere", real.join("dangling")).unwrap();
        symlink("/proc/self/root", real.join("magic")).unwrap();
        std::fs::hard_link(top.path().join("secret"), real.join("hard")).unwrap();
        let fifo = std::process::Command::new("mkfifo").arg(real.join("fifo")).status().unwrap();
        assert!(fifo.success());
        std::os::unix::net::UnixListener::bind(real.join("socket")).unwrap();
        let root = top.path().join("root");
        (top, root)
    }

    #[test]
    fn nothing_but_regular_files_below_the_folder_is_opened() {
        let (_top, root) = folder();
        for (file, outcome) in [
            ("data", Ok("data")),
            ("sub/data", Ok("below")),
            ("sub//./data", Ok("below")),
            ("", Err(Outside::Path)),
            (".", Err(Outside::Path)),
            ("./data", Err(Outside::Path)),
            ("../secret", Err(Outside::Path)),
            ("sub/../data", Err(Outside::Path)),
            ("x/../../secret", Err(Outside::Path)),
            ("/etc/passwd", Err(Outside::Path)),
            ("link", Err(Outside::Link)),
            ("alias", Err(Outside::Link)),
            ("dangling", Err(Outside::Link)),
            ("folder-alias/data", Err(Outside::Link)),
            ("magic/etc/passwd", Err(Outside::Link)),
            ("nosuch", Err(Outside::Missing)),
            ("nosuch/data", Err(Outside::Missing)),
            ("data/data", Err(Outside::Missing)),
            ("sub", Err(Outside::NotAFile)),
            ("fifo", Err(Outside::NotAFile)),
            ("socket", Err(Outside::NotAFile)),
            ("hard", Err(Outside::HardLink)),
            ("da\0ta", Err(Outside::Unreadable(Errno::INVAL.raw_os_error()))),
            (&"x".repeat(300), Err(Outside::Unreadable(Errno::NAMETOOLONG.raw_os_error()))),
        ] {
            let read = open(&root, Path::new(file), 5).map(|opened| opened.read().unwrap());
            let read = read.as_ref().map(|bytes| std::str::from_utf8(bytes).unwrap());
            assert_eq!(read.map_err(|outside| *outside), outcome, "{file:?}");
        }
    }

    #[test]
    fn the_log_is_told_what_the_system_says_and_everybody_else_the_kind() {
        for (errno, kind, full) in [
            (Errno::MFILE, "uncategorized error", "Too many open files (os error 24)"),
            (Errno::ACCESS, "permission denied", "Permission denied (os error 13)"),
        ] {
            let outside = refused(errno);
            assert_eq!(outside.to_string(), format!("cannot be read: {kind}"));
            assert_eq!(outside.in_full(), format!("cannot be read: {full}"));
        }
        assert_eq!(Outside::Link.in_full(), Outside::Link.to_string());
    }

    #[test]
    fn a_file_of_the_servers_own_is_a_regular_one_or_is_made() {
        let (_top, root) = folder();
        for name in ["fifo", "socket", "link", "alias", "dangling", "sub"] {
            for own in [Own::Read, Own::Lock] {
                let error = open_own(&root, name, own).expect_err(name);
                assert_eq!(error.to_string(), format!("'{name}' is no regular file: move it away"));
            }
        }
        assert!(!root.join("nowhere").exists());
        for name in ["data", "hard"] {
            open_own(&root, name, Own::Read).unwrap();
            open_own(&root, name, Own::Lock).unwrap();
        }
        let absent = open_own(&root, "new", Own::Read).unwrap_err();
        assert_eq!((absent.kind(), is_own(&root, "new").unwrap()), (io::ErrorKind::NotFound, false));
        open_own(&root, "new", Own::Lock).unwrap();
        assert!(is_own(&root, "new").unwrap());
    }

    #[test]
    fn a_file_over_its_size_is_not_opened() {
        let (_top, root) = folder();
        let sparse = File::create(root.join("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        let open = |file: &str, max| open(&root, Path::new(file), max).map(|opened| opened.bytes);
        assert_eq!(open("sparse", 1 << 20), Err(Outside::TooLarge { bytes_max: 1 << 20 }));
        assert_eq!(open("data", 3), Err(Outside::TooLarge { bytes_max: 3 }));
        assert_eq!(open("data", 4), Ok(4));
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_not_taken() {
        let (_top, root) = folder();
        for (change, text) in [("longer", "data and more"), ("shorter", "da"), ("other", "atad")] {
            write(root.join("data"), "data");
            let opened = open(&root, Path::new("data"), 100).unwrap();
            // The clock of a file system may tick seldom.
            std::thread::sleep(std::time::Duration::from_millis(20));
            std::fs::write(root.join("data"), text).unwrap();
            let error = opened.read().expect_err(change);
            assert_eq!(error.to_string(), "it was changed while it was read", "{change}");
        }
    }
}
