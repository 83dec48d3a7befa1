//! Files in folders that an lnd can write to. Its user may be another than the agent's, and an lnd that somebody has taken
//! over may put there what it likes: so no symbolic link is followed below the folder that is the agent's alone, only usual
//! files are read, and not more of them than makes sense.

use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, fchmod, fchown, fstat, mkdirat, openat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

/// A file that an lnd writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LndFile {
    base: PathBuf,
    below: PathBuf,
}

impl LndFile {
    /// The file `below` the folder `base`, which only the agent can write to.
    #[must_use]
    pub fn new(base: PathBuf, below: impl Into<PathBuf>) -> Self {
        Self { base, below: below.into() }
    }

    /// Where it is. Not to be opened by this.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.base.join(&self.below)
    }

    /// Its folder, and its name there.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.path().parent().map(Path::to_owned).unwrap_or_default()
    }

    /// All of it; `None` if it is not there.
    ///
    /// # Errors
    /// It is no usual file, has more than `most` bytes, or cannot be read.
    pub fn read(&self, most: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.open()? else { return Ok(None) };
        let mut bytes = Vec::new();
        // It may grow while it is read.
        file.take(most + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > most {
            return Err(io::Error::other(format!("it has more than {most} bytes")));
        }
        Ok(Some(bytes))
    }

    /// Its last bytes, at most so many; `None` if it is not there.
    ///
    /// # Errors
    /// It is no usual file, or cannot be read.
    pub fn tail(&self, most: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(mut file) = self.open()? else { return Ok(None) };
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn open(&self) -> io::Result<Option<File>> {
        let opened = || {
            let (folder, name) = enter(&self.base, &self.below)?;
            // Not waiting for whoever holds the other end, if it is no file.
            openat(folder, name, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        };
        let fd = match opened() {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        if !is(&fd, FileType::RegularFile)? {
            return Err(io::Error::other("it is no usual file"));
        }
        Ok(Some(File::from(fd)))
    }
}

fn is(fd: &OwnedFd, kind: FileType) -> rustix::io::Result<bool> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode) == kind)
}

fn open_dir(above: impl std::os::fd::AsFd, name: &Path, follow: OFlags) -> rustix::io::Result<OwnedFd> {
    openat(above, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | follow, Mode::empty())
}

fn names(below: &Path) -> impl Iterator<Item = rustix::io::Result<&Path>> {
    below.components().map(|component| match component {
        Component::Normal(name) => Ok(Path::new(name)),
        _ => Err(Errno::INVAL),
    })
}

/// The folder of `base/below`, reached without a symbolic link below `base`, and the file's name in it.
fn enter<'a>(base: &Path, below: &'a Path) -> rustix::io::Result<(OwnedFd, &'a Path)> {
    let mut names: Vec<&Path> = names(below).collect::<Result<_, _>>()?;
    let last = names.pop().ok_or(Errno::INVAL)?;
    let mut folder = open_dir(CWD, base, OFlags::empty())?;
    for name in names {
        folder = open_dir(&folder, name, OFlags::NOFOLLOW)?;
    }
    Ok((folder, last))
}

/// Makes the folders of `below` in `base`, one in the other, for their owner only. What is there stays as it is.
///
/// # Errors
/// One of them is something else than a folder, or cannot be made.
pub fn make_dirs(base: &Path, below: &Path) -> io::Result<()> {
    each_dir(base, below, |_| Ok(()))
}

/// As [`make_dirs`], and each is the group's, too, to write in. One that somebody else owns stays as it is.
///
/// # Errors
/// Of [`make_dirs`], or this user is not of the group.
pub fn share_dirs(base: &Path, below: &Path, group: Gid) -> io::Result<()> {
    each_dir(base, below, |dir| hand(dir, group, Mode::RWXU | Mode::RWXG))
}

fn each_dir(base: &Path, below: &Path, act: impl Fn(&OwnedFd) -> rustix::io::Result<()>) -> io::Result<()> {
    let mut folder = open_dir(CWD, base, OFlags::empty())?;
    for name in names(below) {
        let name = name?;
        match mkdirat(&folder, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        folder = open_dir(&folder, name, OFlags::NOFOLLOW)?;
        act(&folder)?;
    }
    Ok(())
}

/// What a group may do with a file of this user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read it.
    Read,
    /// Read and write it.
    Write,
    /// Enter this folder.
    Enter,
}

/// Lets a group at a file or folder of this user's own, the file `below` the folder `base`.
///
/// # Errors
/// It is not there, is something else, or this user is not of the group.
pub fn share(base: &Path, below: &str, group: Gid, access: Access) -> io::Result<()> {
    let (kind, mode) = match access {
        Access::Read => (FileType::RegularFile, Mode::RUSR | Mode::WUSR | Mode::RGRP),
        Access::Write => (FileType::RegularFile, Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP),
        Access::Enter => (FileType::Directory, Mode::RWXU | Mode::RGRP | Mode::XGRP),
    };
    let (folder, name) = enter(base, Path::new(below))?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(folder, name, flags, Mode::empty())?;
    if !is(&fd, kind)? {
        return Err(io::Error::other(format!("{below} is no {kind:?}")));
    }
    Ok(hand(&fd, group, mode)?)
}

/// Of what this user owns only: what is another's was not made by the agent. A file with a second name may be any file.
fn hand(fd: &OwnedFd, group: Gid, mode: Mode) -> rustix::io::Result<()> {
    let stat = fstat(fd)?;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if stat.st_uid != rustix::process::geteuid().as_raw() || (is_file && stat.st_nlink != 1) {
        return Ok(());
    }
    if stat.st_gid != group.as_raw() {
        fchown(fd, None, Some(group))?;
    }
    fchmod(fd, mode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn no_link_leads_out_of_an_lnds_folder() {
        let dir = tempfile::tempdir().unwrap();
        let (base, outside) = (dir.path().join("base"), dir.path().join("outside"));
        for folder in [base.join("a/b"), outside.join("b")] {
            fs::create_dir_all(folder).unwrap();
        }
        let file = LndFile::new(base.clone(), "a/b/file");
        assert_eq!(file.read(10).unwrap(), None);
        fs::write(file.path(), "inside").unwrap();
        assert_eq!(file.read(6).unwrap().as_deref(), Some(b"inside".as_slice()));
        assert_eq!(file.tail(4).unwrap().as_deref(), Some(b"side".as_slice()));
        file.read(5).unwrap_err();

        // The file, and then a folder above it.
        let secret = outside.join("b/file");
        fs::write(&secret, "another's").unwrap();
        fs::remove_file(file.path()).unwrap();
        symlink(&secret, file.path()).unwrap();
        file.read(100).unwrap_err();
        fs::rename(base.join("a"), base.join("old")).unwrap();
        symlink(&outside, base.join("a")).unwrap();
        file.read(100).unwrap_err();
        file.tail(100).unwrap_err();
        let group = rustix::process::getegid();
        let mode = fs::metadata(&secret).unwrap().permissions().mode();
        share(&base, "a/b/file", group, Access::Write).unwrap_err();
        make_dirs(&base, Path::new("a/new")).unwrap_err();
        share_dirs(&base, Path::new("a/b"), group).unwrap_err();
        assert!(!outside.join("new").exists());
        assert_eq!(fs::metadata(&secret).unwrap().permissions().mode(), mode);
        LndFile::new(base.clone(), "../outside/b/file").read(100).unwrap_err();
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        rustix::fs::mknodat(CWD, dir.path().join("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        fs::create_dir(dir.path().join("folder")).unwrap();
        for name in ["pipe", "folder"] {
            LndFile::new(dir.path().to_owned(), name).read(10).unwrap_err();
        }
    }

    #[test]
    fn a_group_gets_what_it_is_given() {
        let dir = tempfile::tempdir().unwrap();
        let group = rustix::process::getegid();
        let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o7777;
        make_dirs(dir.path(), Path::new("x/y")).unwrap();
        assert_eq!((mode("x"), mode("x/y")), (0o700, 0o700));
        share_dirs(dir.path(), Path::new("x/y"), group).unwrap();
        assert_eq!((mode("x"), mode("x/y")), (0o770, 0o770));
        fs::write(dir.path().join("x/file"), "").unwrap();
        for (access, wanted) in [(Access::Write, 0o660), (Access::Read, 0o640)] {
            share(dir.path(), "x/file", group, access).unwrap();
            assert_eq!(mode("x/file"), wanted);
        }
        share(dir.path(), "x", group, Access::Enter).unwrap();
        assert_eq!(mode("x"), 0o750);
        share(dir.path(), "x", group, Access::Read).unwrap_err();
        // It may be any file.
        fs::hard_link(dir.path().join("x/file"), dir.path().join("x/twin")).unwrap();
        share(dir.path(), "x/file", group, Access::Write).unwrap();
        assert_eq!(mode("x/file"), 0o640);
    }
}
