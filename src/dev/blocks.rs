//! Every block of the local chain, kept in a file of ours.
//!
//! A btcd that is killed can lose its whole chain: it flushes rarely. An lnd that knows a longer chain than its backend
//! never becomes active again, and with the chain all funds and channels would be gone. So each block is appended here
//! as soon as it is seen, and at the next start, before any lnd runs, btcd is given what it lost.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufRead, BufReader, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use bitcoin::{BlockHash, block::Header, consensus, hashes::Hash};

use super::{chain_rpc::ChainRpc, error::DevError};

const HEADER_HEX: usize = 160;

/// The kept blocks: one line of hexadecimal each, parents before children.
#[derive(Debug)]
pub struct KeptBlocks {
    path: PathBuf,
    file: File,
    known: HashSet<BlockHash>,
    last: Option<BlockHash>,
}

impl KeptBlocks {
    /// Opens the file, or makes it. A last line that a crash tore off is dropped.
    pub fn open(path: &Path) -> Result<Self, DevError> {
        Self::read(path).map_err(DevError::file("read the kept blocks in", path))
    }

    fn read(path: &Path) -> io::Result<Self> {
        let mut file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let (mut known, mut last, mut whole) = (HashSet::new(), None, 0);
        for block in Lines::new(&file) {
            let block = block?;
            known.insert(block.hash);
            last = Some(block.hash);
            whole += block.raw.len() as u64 + 1;
        }
        file.set_len(whole)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { path: path.to_owned(), file, known, last })
    }

    pub fn len(&self) -> usize {
        self.known.len()
    }

    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Keeps the blocks of btcd's best chain that are not kept yet, whoever mined them; returns how many.
    pub async fn keep_new(&mut self, rpc: &ChainRpc) -> Result<usize, DevError> {
        let mut fresh = Vec::new();
        let mut hash = rpc.best_block().await?;
        while !self.known.contains(&hash) {
            let raw = rpc.raw_block(hash).await?;
            let Some(header) = header(&raw) else {
                return Err(DevError::Unusable(format!("btcd's block {hash} cannot be read")));
            };
            if header.prev_blockhash == BlockHash::all_zeros() {
                break; // The first block of the network, which every btcd has.
            }
            fresh.push((hash, raw));
            hash = header.prev_blockhash;
        }
        fresh.reverse();
        if let Err(source) = self.append(&fresh) {
            return Err(DevError::file("keep blocks in", &self.path)(source));
        }
        Ok(fresh.len())
    }

    fn append(&mut self, fresh: &[(BlockHash, String)]) -> io::Result<()> {
        let Some((last, _)) = fresh.last() else {
            return Ok(());
        };
        let lines: String = fresh.iter().flat_map(|(_, raw)| [raw.as_str(), "\n"]).collect();
        self.file.write_all(lines.as_bytes())?;
        self.file.sync_data()?;
        self.known.extend(fresh.iter().map(|(hash, _)| *hash));
        self.last = Some(*last);
        Ok(())
    }

    /// Gives btcd the kept blocks that it does not have; returns how many. Must be done before any lnd starts.
    pub async fn restore(&self, rpc: &ChainRpc) -> Result<usize, DevError> {
        match self.last {
            Some(last) if !rpc.has_block(last).await? => {}
            _ => return Ok(0),
        }
        let blocks: Vec<Line> =
            Lines::new(&self.file).collect::<io::Result<_>>().map_err(DevError::file("read", &self.path))?;
        let lost = first_missing(&blocks, rpc).await?;
        for block in &blocks[lost..] {
            rpc.submit_block(&block.raw).await?;
        }
        Ok(blocks.len() - lost)
    }
}

/// btcd loses blocks from the end, so what it still has is a beginning of the list: a binary search finds where it ends.
async fn first_missing(blocks: &[Line], rpc: &ChainRpc) -> Result<usize, DevError> {
    let (mut have, mut missing) = (0, blocks.len());
    while have < missing {
        let middle = have.midpoint(missing);
        if rpc.has_block(blocks[middle].hash).await? {
            have = middle + 1;
        } else {
            missing = middle;
        }
    }
    Ok(have)
}

struct Line {
    hash: BlockHash,
    raw: String,
}

/// The whole lines of the file from its beginning; ends at the first that is torn.
struct Lines<'a>(BufReader<&'a File>, bool);

impl<'a> Lines<'a> {
    fn new(file: &'a File) -> Self {
        Self(BufReader::with_capacity(1 << 16, file), false)
    }
}

impl Iterator for Lines<'_> {
    type Item = io::Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.1 {
            self.1 = true;
            if let Err(error) = self.0.seek(SeekFrom::Start(0)) {
                return Some(Err(error));
            }
        }
        let mut raw = String::new();
        match self.0.read_line(&mut raw) {
            Ok(_) if raw.pop() != Some('\n') => None,
            Ok(_) => header(&raw).map(|header| Ok(Line { hash: header.block_hash(), raw })),
            Err(error) => Some(Err(error)),
        }
    }
}

fn header(raw: &str) -> Option<Header> {
    consensus::encode::deserialize_hex(raw.get(..HEADER_HEX)?).ok()
}

#[cfg(test)]
mod tests {
    use bitcoin::{Network, blockdata::constants::genesis_block, consensus::encode::serialize_hex};

    use super::*;

    fn block(nonce: u32) -> (BlockHash, String) {
        let mut block = genesis_block(Network::Regtest);
        block.header.nonce = nonce;
        (block.block_hash(), serialize_hex(&block))
    }

    #[test]
    fn what_was_kept_is_there_again_and_a_torn_line_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blocks");
        let mut kept = KeptBlocks::open(&path).unwrap();
        assert!(kept.is_empty());
        kept.append(&[block(1), block(2)]).unwrap();
        kept.append(&[block(3)]).unwrap();
        drop(kept);

        let whole = std::fs::metadata(&path).unwrap().len();
        let mut torn = File::options().append(true).open(&path).unwrap();
        torn.write_all(&block(4).1.as_bytes()[..300]).unwrap();
        let mut kept = KeptBlocks::open(&path).unwrap();
        assert_eq!((kept.len(), kept.last), (3, Some(block(3).0)));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), whole);

        kept.append(&[block(5)]).unwrap();
        let hashes: Vec<_> = Lines::new(&kept.file).map(|line| line.unwrap().hash).collect();
        assert_eq!(hashes, [block(1).0, block(2).0, block(3).0, block(5).0]);
    }
}
