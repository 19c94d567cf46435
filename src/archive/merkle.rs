//! The hash tree over the lines of a segment, as RFC 6962 (section 2.1) has it: a leaf is SHA-256(0x00 ‖ line), a node is
//! SHA-256(0x01 ‖ left ‖ right).
//!
//! The tree is built line by line. Kept are the roots of at most [`MAX_BLOCKS`] blocks of lines, whose size is a power of two: with
//! them a line that was changed is found without keeping a hash of every line.

use sha2::{Digest as _, Sha256};

/// So many blocks at most stand in a manifest: up to so many lines each has a hash of its own.
const MAX_BLOCKS: usize = 512;

pub(crate) type Hash = [u8; 32];

/// A tree in the making.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    lines: u64,
    /// A block has 2^level lines, but for the last one.
    level: u32,
    blocks: Vec<Hash>,
    /// Whole subtrees of the block that is begun, the largest first: their levels and roots.
    begun: Vec<(u32, Hash)>,
}

/// A tree that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Roots {
    pub(crate) root: Hash,
    /// How many lines a block has, but for the last one.
    pub(crate) block_lines: u64,
    pub(crate) blocks: Vec<Hash>,
}

impl Tree {
    /// Adds a line, without its line feed.
    pub(crate) fn push(&mut self, line: &[u8]) {
        self.lines += 1;
        let mut level = 0;
        let mut hash = leaf(line);
        while level < self.level
            && let Some((_, left)) = self.begun.pop_if(|(begun, _)| *begun == level)
        {
            hash = node(&left, &hash);
            level += 1;
        }
        if level < self.level {
            self.begun.push((level, hash));
            return;
        }
        self.blocks.push(hash);
        if self.blocks.len() == MAX_BLOCKS {
            self.blocks = self.blocks.chunks(2).map(|pair| node(&pair[0], &pair[1])).collect();
            self.level += 1;
        }
    }

    /// Returns how many lines there are.
    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }

    /// Ends the tree.
    pub(crate) fn end(mut self) -> Roots {
        let last = self.begun.iter().rev().map(|(_, hash)| *hash);
        self.blocks.extend(last.reduce(|right, left| node(&left, &right)));
        Roots { root: root(&self.blocks), block_lines: 1 << self.level, blocks: self.blocks }
    }
}

/// Returns the root over blocks of equal size, the last of which may be smaller.
pub(crate) fn root(blocks: &[Hash]) -> Hash {
    match blocks {
        [] => Sha256::new().finalize().into(),
        [one] => *one,
        _ => {
            let (left, right) = halves(blocks);
            node(&root(left), &root(right))
        }
    }
}

/// Splits more than one block at the largest power of two that is less than their number.
fn halves(blocks: &[Hash]) -> (&[Hash], &[Hash]) {
    blocks.split_at(blocks.len().next_power_of_two() / 2)
}

/// Returns the hash of a line, without its line feed.
pub(crate) fn leaf(line: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(line).finalize().into()
}

/// Returns the hashes beside the way from a block up to the root over all (section 2.1.1).
pub(crate) fn path(blocks: &[Hash], n: usize) -> Vec<Hash> {
    if blocks.len() < 2 {
        return Vec::new();
    }
    let (left, right) = halves(blocks);
    let (mut hashes, beside) = if n < left.len() {
        (path(left, n), root(right))
    } else {
        (path(right, n - left.len()), root(left))
    };
    hashes.push(beside);
    hashes
}

/// Returns the root that a path leads to from leaf `n` of `size`; nothing, if no such path has this length (RFC 9162, section 2.1.3.2).
pub(crate) fn root_by_path(leaf: Hash, n: u64, size: u64, path: &[Hash]) -> Option<Hash> {
    let mut last = size.checked_sub(1).filter(|last| n <= *last)?;
    let (mut n, mut hash) = (n, leaf);
    for beside in path {
        if last == 0 {
            return None;
        }
        if n % 2 == 1 || n == last {
            hash = node(beside, &hash);
            // Up to where it is a right one: above the last one there is nothing beside.
            while n % 2 == 0 && n > 0 {
                (n, last) = (n / 2, last / 2);
            }
        } else {
            hash = node(&hash, beside);
        }
        (n, last) = (n / 2, last / 2);
    }
    (last == 0).then_some(hash)
}

fn node(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, word for word.
    fn naive(lines: &[Vec<u8>]) -> Hash {
        match lines {
            [] => Sha256::digest([]).into(),
            [line] => Sha256::digest([&[0], &line[..]].concat()).into(),
            _ => {
                let mut k = 1;
                while k * 2 < lines.len() {
                    k *= 2;
                }
                let (left, right) = (naive(&lines[..k]), naive(&lines[k..]));
                Sha256::digest([&[1], &left[..], &right[..]].concat()).into()
            }
        }
    }

    fn built(lines: &[Vec<u8>]) -> Roots {
        let mut tree = Tree::default();
        for line in lines {
            tree.push(line);
        }
        assert_eq!(tree.lines(), lines.len() as u64);
        tree.end()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_root_is_that_of_the_definition(n in 0..3000_usize, seed in any::<u8>()) {
            let lines: Vec<Vec<u8>> = (0..n).map(|n| vec![seed; n % 7]).collect();
            let roots = built(&lines);
            prop_assert_eq!(roots.root, naive(&lines));
            prop_assert!(roots.blocks.len() <= MAX_BLOCKS);
            let size = usize::try_from(roots.block_lines).unwrap();
            let blocks: Vec<Hash> = lines.chunks(size).map(naive).collect();
            prop_assert_eq!(roots.blocks, blocks);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_path_leads_to_the_root_from_its_own_leaf_alone(n in 1..300_usize, at in any::<prop::sample::Index>()) {
            let leaves: Vec<Hash> = (0..n).map(|n| leaf(&n.to_be_bytes())).collect();
            let (at, size) = (at.index(n), n as u64);
            let mut hashes = path(&leaves, at);
            for other in 0..n {
                let found = root_by_path(leaves[at], other as u64, size, &hashes);
                prop_assert_eq!(found == Some(root(&leaves)), other == at);
            }
            prop_assert_ne!(root_by_path(leaf(b"other"), at as u64, size, &hashes), Some(root(&leaves)));
            hashes.push([0; 32]);
            prop_assert_ne!(root_by_path(leaves[at], at as u64, size, &hashes), Some(root(&leaves)));
        }
    }

    #[test]
    fn a_few_lines_have_a_hash_each() {
        let lines: Vec<Vec<u8>> = (0..511_u16).map(|n| n.to_be_bytes().to_vec()).collect();
        assert_eq!((built(&lines).block_lines, built(&lines).blocks.len()), (1, 511));
    }

    #[test]
    fn the_root_of_no_lines_is_the_hash_of_nothing() {
        let hex: String = built(&[]).root.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
