//! What a pipe knows of its requests.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::Finished;
use crate::drivers::block::stand::Standing;
use crate::drivers::block::verdict::{UNWRITTEN, judge, verdict};
use crate::mem::pool::DmaBuf;
use crate::queue::{Completion, Token};
use crate::spec::device::block::request::STATUS_SIZE;

/// Header and status of a request that is not in flight.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) header: DmaBuf,
    pub(super) status: DmaBuf,
}

/// A request in flight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) token: Token,
    pub(super) tag: u64,
}

/// Which requests are under way, and what others are made of.
#[derive(Debug)]
pub(super) struct Books {
    /// Chains that stand with a header and a status: most requests are sent in one of those.
    pub(super) standing: Standing,
    /// Headers and statuses that are in no chain.
    pub(super) frames: Vec<Frame>,
    /// By the descriptor that heads the chain.
    pub(super) entries: Box<[Option<Entry>]>,
    pub(super) under_way: u32,
    pub(super) legacy: bool,
}

impl Books {
    /// The request of this token, if it is one of these; it is not in flight any more.
    #[inline(always)]
    pub(super) fn close(&mut self, token: Token) -> Option<Entry> {
        let entry = self.entries.get_mut(usize::from(token.slot())).and_then(Option::take);
        let entry = entry.filter(|entry| entry.token == token)?;
        self.under_way = self.under_way.wrapping_sub(1);
        Some(entry)
    }

    /// Takes a used buffer apart; `None` for the late answer to a call that was made before there was a pipe.
    #[inline(always)]
    pub(super) fn take(&mut self, mut used: Completion<'_, DmaBuf>) -> Option<Finished> {
        let (token, written, capacity) = (used.token(), used.written(), used.capacity());
        if let Some(status) = used.last_of_three() {
            let judged = judge(status, &used, self.legacy);
            let data = used.stand();
            self.standing.put(token.slot(), data.as_ref());
            let Entry { tag, .. } = self.close(token)?;
            return Some(Finished { tag, outcome: judged.map(|()| data) });
        }
        let bufs = match used.len() {
            3 => used.take_array(),
            _ => {
                let [header, status] = used.take_array();
                [header, None, status]
            }
        };
        drop(used);
        self.finish(token, bufs, written, capacity)
    }

    /// Judges a request, and takes header and status back.
    #[cold]
    pub(super) fn finish(
        &mut self,
        token: Token,
        [header, data, status]: [Option<DmaBuf>; 3],
        written: u32,
        capacity: u32,
    ) -> Option<Finished> {
        let mut byte = [UNWRITTEN; STATUS_SIZE];
        let read = status.as_ref().map_or(Ok(()), |status| status.read(0, &mut byte));
        if let (Some(header), Some(status)) = (header, status) {
            self.frames.push(Frame { header, status });
        }
        let Entry { tag, .. } = self.close(token)?;
        let [byte] = byte;
        let judged = read.and_then(|()| verdict(self.legacy, byte, written, capacity));
        Some(Finished { tag, outcome: judged.map(|()| data) })
    }
}
