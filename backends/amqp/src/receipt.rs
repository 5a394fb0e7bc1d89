//! Receipts: which server holds a delivery, and which of its deliveries it is.

use bytes::{Buf, BufMut, BytesMut};
use isimud_contract::Receipt;
use uuid::Uuid;

use crate::held::Tag;

/// The bytes of a tag.
pub(crate) const TAG: usize = 16;

/// Who holds a delivery. A server has a new id with each life.
pub(crate) fn write(server: Uuid, tag: Tag) -> Receipt {
    let mut bytes = BytesMut::with_capacity(16 + TAG);
    bytes.put_slice(server.as_bytes());
    put(&mut bytes, tag);
    Receipt(bytes.freeze())
}

/// Reads a receipt; `None` for what is none.
pub(crate) fn read(receipt: &Receipt) -> Option<(Uuid, Tag)> {
    let (server, mut tag) = receipt.0.split_at_checked(16)?;
    let server = Uuid::from_slice(server).ok()?;
    (tag.len() == TAG).then(|| (server, get(&mut tag)))
}

pub(crate) fn put(bytes: &mut impl BufMut, tag: Tag) {
    bytes.put_u64(tag.channel);
    bytes.put_u64(tag.delivery);
}

/// Takes a tag from the head of bytes that are long enough.
pub(crate) fn get(bytes: &mut impl Buf) -> Tag {
    Tag {
        channel: bytes.get_u64(),
        delivery: bytes.get_u64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_read_as_it_was_written() {
        let (server, tag) = (
            Uuid::now_v7(),
            Tag {
                channel: 3,
                delivery: u64::MAX,
            },
        );
        assert_eq!(read(&write(server, tag)), Some((server, tag)));
        for bytes in [&b""[..], &[0; 31], &[0; 33]] {
            assert_eq!(read(&Receipt(bytes.to_vec().into())), None);
        }
    }
}
