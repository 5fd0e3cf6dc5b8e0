//! A version's files in memory: read once, hashed as they are read.
//!
//! Always: what is checked, hashed, tried and served is the same bytes, whatever becomes of the files meanwhile. On
//! Linux the bytes lie in sealed memory that a worker process can be given and nobody can change.
//! Not here: what the files say.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::Mmap;
use prost::encoding::WireType;
use sha2::{Digest, Sha256};

use crate::backend::{Artefact, LoadError, Opened};

/// Bytes of a model file at the most: the format's own limit for one message is 2 GiB.
const MODEL_BYTES_MAX: u64 = (1 << 31) - 1;

/// Bytes that are looked at before the rest of a model file is read.
const FIRST_BYTES: usize = 4096;

/// Bytes that nobody can change any more.
pub struct Blob {
    #[cfg(target_os = "linux")]
    file: std::os::fd::OwnedFd,
    map: Mmap,
}

impl Blob {
    /// No bytes at all.
    #[cfg(target_os = "linux")]
    pub fn empty() -> Result<Self, String> {
        Filling::new(0).and_then(Filling::finish).map_err(|e| e.to_string())
    }

    /// Takes over memory that somebody else filled and sealed. Errors: it is not sealed, or cannot be mapped.
    #[cfg(target_os = "linux")]
    pub fn received(file: std::os::fd::OwnedFd) -> std::io::Result<Self> {
        use rustix::fs::{SealFlags, fcntl_get_seals};
        if !fcntl_get_seals(&file)?.contains(SealFlags::WRITE | SealFlags::SHRINK) {
            return Err(std::io::Error::other("the memory can still be changed"));
        }
        // SAFETY: the seals say that nobody writes to it or makes it shorter any more.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self { file, map })
    }

    #[cfg(target_os = "linux")]
    pub fn file(&self) -> std::os::fd::BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.file)
    }
}

impl AsRef<[u8]> for Blob {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}

/// Memory that is being filled.
#[cfg(target_os = "linux")]
struct Filling(std::fs::File);

#[cfg(target_os = "linux")]
impl Filling {
    fn new(_bytes: u64) -> std::io::Result<Self> {
        use rustix::fs::{MemfdFlags, memfd_create};
        let file = memfd_create("weir-model", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        Ok(Self(file.into()))
    }

    fn take(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        std::io::Write::write_all(&mut self.0, bytes)
    }

    fn finish(self) -> std::io::Result<Blob> {
        use rustix::fs::{SealFlags, fcntl_add_seals};
        let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        fcntl_add_seals(&self.0, seals)?;
        Blob::received(self.0.into())
    }
}

/// Memory that is being filled.
#[cfg(not(target_os = "linux"))]
struct Filling {
    map: memmap2::MmapMut,
    filled: usize,
}

#[cfg(not(target_os = "linux"))]
impl Filling {
    fn new(bytes: u64) -> std::io::Result<Self> {
        let length = usize::try_from(bytes).map_err(std::io::Error::other)?;
        Ok(Self { map: memmap2::MmapMut::map_anon(length)?, filled: 0 })
    }

    fn take(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let end = self.filled + bytes.len();
        let place = self.map.get_mut(self.filled..end).ok_or_else(|| std::io::Error::other("it grew"))?;
        place.copy_from_slice(bytes);
        self.filled = end;
        Ok(())
    }

    fn finish(self) -> std::io::Result<Blob> {
        Ok(Blob { map: self.map.make_read_only()? })
    }
}

/// The files of one version.
pub struct Files {
    pub model: Arc<Blob>,
    /// By the location that the model file names.
    pub data: Vec<(String, Arc<Blob>)>,
    pub digest: String,
}

impl Files {
    /// Reads the model file, of `bytes_max` at the most. Errors: it is no regular file of its own, too large, or was changed while it was read.
    pub fn model(artefact: &Artefact, bytes_max: u64) -> Result<(Arc<Blob>, [u8; 32]), LoadError> {
        let refused = |why: String| LoadError(format!("the model file {why}"));
        let opened =
            artefact.open(bytes_max.min(MODEL_BYTES_MAX)).map_err(|outside| refused(outside.to_string()))?;
        let mut seen = false;
        read(opened, |first| if std::mem::replace(&mut seen, true) { Ok(()) } else { plausible(first) })
            .map_err(|e| refused(e.to_string()))
            .map(|(blob, hash)| (Arc::new(blob), hash))
    }

    /// The files with their external data, `bytes_max` of it at the most.
    pub fn with_data(
        artefact: &Artefact,
        (model, hash): (Arc<Blob>, [u8; 32]),
        locations: Vec<String>,
        bytes_max: u64,
    ) -> Result<Self, LoadError> {
        let mut digest = Sha256::new();
        digest.update(hash);
        let mut data = Vec::new();
        let mut left = bytes_max;
        for location in locations {
            let shown: String = location.chars().take(80).collect();
            let refused = |why: String| LoadError(format!("external data at '{shown}' {why}"));
            let file = plain(&location).ok_or_else(|| {
                refused("leaves the model's folder; keep data files beside the model file".to_owned())
            })?;
            let opened = artefact.open_beside(&file, left).map_err(|outside| refused(outside.to_string()))?;
            let (blob, hash) = read(opened, |_| Ok(())).map_err(|e| refused(e.to_string()))?;
            left = left.saturating_sub(blob.as_ref().len() as u64);
            digest.update((location.len() as u64).to_le_bytes());
            digest.update(location.as_bytes());
            digest.update(hash);
            data.push((location, Arc::new(blob)));
        }
        let digest = if data.is_empty() { hash.into() } else { digest.finalize() };
        let digest = digest.iter().map(|byte: &u8| format!("{byte:02x}")).collect();
        Ok(Self { model, data, digest })
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> u64 {
        let blobs = std::iter::once(&self.model).chain(self.data.iter().map(|(_, blob)| blob));
        blobs.map(|blob| (**blob).as_ref().len() as u64).sum()
    }
}

/// A data file's path as the model file writes it, which stays in the model's folder. `./weights.bin` is how some
/// exporters write `weights.bin`.
fn plain(location: &str) -> Option<std::path::PathBuf> {
    use std::path::Component;
    let path = Path::new(location);
    let plain = path.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    // ONNX Runtime reads places that begin with an asterisk as addresses in memory.
    let named = |c: char| !c.is_control() && c != '*';
    (plain && !location.is_empty() && location.chars().all(named))
        .then(|| path.components().filter(|c| *c != Component::CurDir).collect())
}

fn read(
    opened: Opened,
    mut look: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> std::io::Result<(Blob, [u8; 32])> {
    let mut filling = Filling::new(opened.bytes)?;
    let mut hasher = Sha256::new();
    opened.read_in_pieces(|piece| {
        look(piece)?;
        hasher.update(piece);
        filling.take(piece)
    })?;
    Ok((filling.finish()?, hasher.finalize().into()))
}

/// Refuses what cannot be a model file by its first bytes, so that the rest of a large file need not be read.
fn plausible(first: &[u8]) -> std::io::Result<()> {
    let refuse = |what: &str| Err(std::io::Error::other(what.to_owned()));
    if first.starts_with(b"version https://git-lfs") {
        return refuse("is a Git LFS pointer; fetch the file itself with git lfs pull");
    }
    let mut rest = &first[..first.len().min(FIRST_BYTES)];
    while !rest.is_empty() {
        // A field may reach past what is looked at; only what is wrong for sure is refused.
        let Ok((field, wire_type)) = prost::encoding::decode_key(&mut rest) else {
            return if rest.len() < 10 { Ok(()) } else { refuse(NO_MODEL) };
        };
        // ModelProto's fields, with room for those to come; groups are of an older time.
        let group = matches!(wire_type, WireType::StartGroup | WireType::EndGroup);
        if field > 64 || group {
            return refuse(NO_MODEL);
        }
        let context = prost::encoding::DecodeContext::default();
        if prost::encoding::skip_field(wire_type, field, &mut rest, context).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

const NO_MODEL: &str = "is not an ONNX model, or it is cut off";

/// The model file's bytes as `prost` takes them, without a copy.
pub fn as_bytes(blob: &Arc<Blob>) -> Bytes {
    struct Shared(Arc<Blob>);
    impl AsRef<[u8]> for Shared {
        fn as_ref(&self) -> &[u8] {
            (*self.0).as_ref()
        }
    }
    Bytes::from_owner(Shared(Arc::clone(blob)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_model_is_known_by_its_first_bytes() {
        assert!(plausible(&[0; 5000]).is_err(), "zeros");
        assert!(plausible(b"version https://git-lfs.github.com/spec/v1\n").is_err());
        assert!(plausible(b"<!DOCTYPE html><html>").is_err());
        // An IR version, then a graph longer than what is here.
        assert!(plausible(&[0x08, 0x08, 0x3a, 0xff, 0xff, 0x7f, 1, 2, 3]).is_ok());
        assert!(plausible(&[]).is_ok());
    }

    #[test]
    fn locations_that_leave_the_folder_are_none() {
        for bad in ["", "/etc/passwd", "../x", "a/../../x", "..", "a\0b", "*/_ORT_MEM_ADDR_/*"] {
            assert_eq!(plain(bad), None, "{bad:?}");
        }
        assert_eq!(plain("./a/./b.bin").as_deref(), Some(Path::new("a/b.bin")));
    }
}
