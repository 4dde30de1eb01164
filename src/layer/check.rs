//! A layer read to its end, to find out whether it is what it is said to be: a well-formed tar with the promised diff
//! id, of which no name leads out of the tree. On the way it can be compressed anew.

use std::io::{self, Read, Write};

use super::apply::{hostile, normal};
use super::write::write_blob;
use super::{LayerError, LayerOptions, TarEntryKind, TarReader, Watch};
use crate::blob::Store;
use crate::oci::{DiffId, Digest, Layer};
use crate::stream::HashingWriter;

/// Reads the layer that `tar` is, decompressed.
pub fn check_layer(tar: impl Read, expected: &DiffId) -> Result<(), LayerError> {
    let mut hash = HashingWriter::new(io::sink());
    pass(tar, &mut hash)?;
    same(expected, &hash.finish().1.digest)
}

/// Writes the layer that `tar` is, decompressed, into `store`, compressed as `options` say. Its content stays as it is,
/// and the bytes are those that the step itself would have made with these options.
pub fn recompress_layer(
    tar: impl Read,
    expected: &DiffId,
    options: &LayerOptions,
    store: &Store,
    watch: Option<Watch<'_>>,
) -> Result<Layer, LayerError> {
    let layer = write_blob(options, store, watch, |out| pass(tar, out))?;
    same(expected, layer.diff_id.digest())?;
    Ok(layer)
}

fn same(expected: &DiffId, found: &Digest) -> Result<(), LayerError> {
    match expected.digest() == found {
        true => Ok(()),
        false => Err(LayerError::WrongContent { expected: expected.clone(), found: found.clone() }),
    }
}

/// Passes a tar on to `out`, byte by byte, and looks at its entries meanwhile.
fn pass(tar: impl Read, out: &mut impl Write) -> Result<(), LayerError> {
    let mut tee = Tee { inner: tar, out, failed: None };
    let mut reader = TarReader::new(&mut tee);
    let result = check_entries(&mut reader);
    // An error of the writer reaches the reader as an archive that cannot be read.
    if let Some(source) = tee.failed.take() {
        return Err(LayerError::Write { source });
    }
    result?;
    io::copy(&mut tee, &mut io::sink()).map_err(|source| LayerError::Archive { source })?;
    tee.failed.take().map_or(Ok(()), |source| Err(LayerError::Write { source }))
}

fn check_entries(reader: &mut TarReader<io::BufReader<impl Read>>) -> Result<(), LayerError> {
    while let Some(entry) = reader.next_entry()? {
        let path = normal(&entry.path, &entry.path, "has a name", true)?;
        if path.file_name().is_none() && entry.kind != TarEntryKind::Directory {
            return Err(hostile(&entry.path, "would take the place of the root"));
        }
        if let TarEntryKind::HardLink { target } = &entry.kind {
            normal(target, &entry.path, "is a hard link", true)?;
        }
    }
    Ok(())
}

/// Hands what is read to a writer as well.
struct Tee<'a, R, W> {
    inner: R,
    out: &'a mut W,
    failed: Option<io::Error>,
}

impl<R: Read, W: Write> Read for Tee<'_, R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if let Err(error) = self.out.write_all(&buffer[..count]) {
            let kind = error.kind();
            self.failed = Some(error);
            return Err(kind.into());
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::layer::{Change, Content, Node, NodeKind, TarOptions, write_layer};
    use crate::oci::ManifestFormat;
    use crate::stream::{Compression, auto_decoder};

    fn tar(names: &[&str]) -> Vec<u8> {
        let mut builder = Vec::new();
        for name in names {
            let mut header = [0_u8; 512];
            header[..name.len()].copy_from_slice(name.as_bytes());
            header[100..108].copy_from_slice(b"0000644\0");
            header[108..116].copy_from_slice(b"0000000\0");
            header[116..124].copy_from_slice(b"0000000\0");
            header[124..136].copy_from_slice(b"00000000000\0");
            header[136..148].copy_from_slice(b"00000000000\0");
            header[156] = b'0';
            header[257..265].copy_from_slice(b"ustar\x0000");
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            builder.extend_from_slice(&header);
        }
        builder.extend_from_slice(&[0; 1024]);
        builder
    }

    #[test]
    fn a_layer_is_what_it_says_or_an_error() {
        let good = tar(&["a", "b/c"]);
        let diff_id = |bytes: &[u8]| DiffId::new(Digest::of(bytes));
        check_layer(&good[..], &diff_id(&good)).unwrap();
        let wrong = check_layer(&good[..], &diff_id(b"other"));
        assert!(matches!(wrong, Err(LayerError::WrongContent { .. })), "{wrong:?}");
        let cut = check_layer(&good[..700], &diff_id(&good[..700]));
        assert!(cut.is_err(), "{cut:?}");
        for name in ["../a", "b/../../a", "/../a"] {
            let bad = tar(&["a", name]);
            let found = check_layer(&bad[..], &diff_id(&bad));
            assert!(matches!(found, Err(LayerError::Hostile { .. })), "{name}: {found:?}");
        }
    }

    #[test]
    fn a_layer_compressed_anew_has_the_bytes_it_would_have_had() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let options = |compression| LayerOptions {
            compression,
            threads: NonZeroUsize::MIN,
            tar: TarOptions::default(),
            format: ManifestFormat::Oci,
        };
        let changes = || -> crate::layer::ChangeSet {
            let content = Content::Bytes(b"some text, some text".repeat(5000).into());
            let node = Node {
                kind: NodeKind::File { size_bytes: 100_000, content },
                mode: 0o644,
                uid: 0,
                gid: 0,
                mtime: crate::tree::Timestamp { seconds: 5, nanoseconds: 0 },
                xattrs: std::collections::BTreeMap::new(),
            };
            Box::new(std::iter::once(Ok(Change::Upsert { path: "file".into(), node })))
        };
        let forms =
            [Compression::None, Compression::gzip(), Compression::zstd(), Compression::Zstd { level: 1 }];
        for (from, to) in forms.iter().flat_map(|from| forms.iter().map(move |to| (*from, *to))) {
            let first = write_layer(changes(), &options(from), &store, None).unwrap();
            let wanted = write_layer(changes(), &options(to), &store, None).unwrap();
            let reader = crate::blob::BlobSource::open(&*store, &first.descriptor).unwrap();
            let (_, tar) = auto_decoder(reader).unwrap();
            let made = recompress_layer(tar, &first.diff_id, &options(to), &store, None).unwrap();
            assert_eq!(made, wanted, "{from} to {to}");
        }
    }
}
