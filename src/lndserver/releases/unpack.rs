//! Takes one program out of an archive (`.tar.gz`), and nothing else, wherever in it that is.

use flate2::read::GzDecoder;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// lnd has about 100 MB.
const MOST_BYTES: u64 = 1 << 30;

/// Why there is no program.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It has none, or several.
    #[error("the archive has {count} files named {name}")]
    Count {
        /// How many.
        count: usize,
        /// The name.
        name: &'static str,
    },
    /// It is more than a program.
    #[error("the archive's {0} has more than {MOST_BYTES} bytes")]
    TooLarge(&'static str),
    /// It is no archive, or the disk fails.
    #[error("the archive cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Writes the only regular file of this name, in whatever folder of the archive, to `to`.
pub(super) fn unpack(archive: File, name: &'static str, mut to: File) -> Result<(), ArchiveError> {
    let mut archive = tar::Archive::new(GzDecoder::new(archive));
    let mut count = 0;
    for entry in archive.entries()? {
        let entry = entry?;
        let is_it = entry.header().entry_type().is_file() && is_named(&entry.path()?, name);
        if !is_it {
            continue;
        }
        count += 1;
        if count == 1 && io::copy(&mut entry.take(MOST_BYTES + 1), &mut to)? > MOST_BYTES {
            return Err(ArchiveError::TooLarge(name));
        }
    }
    if count == 1 { Ok(()) } else { Err(ArchiveError::Count { count, name }) }
}

fn is_named(path: &Path, name: &str) -> bool {
    path.file_name().is_some_and(|file| file == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::fs;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (path, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o755);
            builder.append_data(&mut header, path, *bytes).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    fn unpacked(archive: &[u8]) -> Result<Vec<u8>, ArchiveError> {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::write(&from, archive).unwrap();
        unpack(File::open(&from).unwrap(), "lnd", File::create(&to).unwrap())?;
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else was written");
        Ok(fs::read(&to).unwrap())
    }

    #[test]
    fn one_program_comes_out_wherever_it_is() {
        let whole = archive(&[("lnd-linux/README", b"x"), ("lnd-linux/lnd", b"program"), ("lnd-linux/lncli", b"y")]);
        assert_eq!(unpacked(&whole).unwrap(), b"program");
    }

    #[test]
    fn none_several_and_no_archive_are_refused() {
        let none = archive(&[("a/lncli", b"y")]);
        assert!(matches!(unpacked(&none), Err(ArchiveError::Count { count: 0, .. })));
        let two = archive(&[("a/lnd", b"x"), ("b/lnd", b"y")]);
        assert!(matches!(unpacked(&two), Err(ArchiveError::Count { count: 2, .. })));
        assert!(matches!(unpacked(b"no archive"), Err(ArchiveError::Io(_))));
        let whole = archive(&[("lnd", &[7; 100_000])]);
        assert!(matches!(unpacked(&whole[..whole.len() / 2]), Err(ArchiveError::Io(_))), "cut off");
    }
}
