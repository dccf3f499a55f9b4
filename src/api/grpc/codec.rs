//! How messages are encoded and decoded: as prost does it, except that a message of very many fields is refused before
//! anything of it is decoded. An operation of a batch may be 2 bytes long, and takes fifty times as many once it is decoded.

use std::marker::PhantomData;

use bytes::Buf as _;
use prost::{Message, decode_length_delimiter};
use raftkv_protocol::client::BATCH_OPERATIONS_MAX;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// The most fields of a message, each element of a list counted: the longest batch that any server takes, as often again for
/// the refusal to say what is wrong with longer ones, and what later versions may add.
const FIELDS_MAX: usize = 2 * BATCH_OPERATIONS_MAX;

/// How large the two buffers of a call are at first. They grow with the message; most are small, and tonic's 8 KiB for each
/// would cost more than to decode them.
const BUFFER_BYTES: usize = 512;
/// So many bytes of a stream's messages are sent at once.
const YIELD_BYTES: usize = 32 << 10;

/// What the generated code encodes responses and decodes requests with.
#[derive(Debug)]
pub struct Bounded<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Bounded<T, U> {
    fn default() -> Bounded<T, U> {
        Bounded(PhantomData)
    }
}

impl<T, U> Codec for Bounded<T, U>
where
    T: Message + 'static,
    U: Message + Default + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> ProstEncoder<T> {
        ProstEncoder::new(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }

    fn decoder(&mut self) -> BoundedDecoder<U> {
        BoundedDecoder(ProstDecoder::new(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)))
    }
}

/// Decodes messages that do not have too many fields.
#[derive(Debug)]
pub struct BoundedDecoder<U>(ProstDecoder<U>);

impl<U: Message + Default> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        check(message.chunk())?;
        self.0.decode(message)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

/// Refuses a message with too many fields, or whose fields cannot be told apart.
fn check(mut message: &[u8]) -> Result<(), Status> {
    for _ in 0..FIELDS_MAX {
        if message.is_empty() {
            return Ok(());
        }
        message = behind_field(message).ok_or_else(|| Status::internal("its fields cannot be told apart"))?;
    }
    if message.is_empty() {
        return Ok(());
    }
    Err(Status::out_of_range(format!("it has more than {FIELDS_MAX} fields or elements of a list")))
}

/// What follows the first field of an encoded message. Groups, which no message here has ever had, are not understood.
fn behind_field(mut message: &[u8]) -> Option<&[u8]> {
    let key = decode_length_delimiter(&mut message).ok()?;
    let length = match key & 7 {
        0 => decode_length_delimiter(&mut message).ok().map(|_| 0)?,
        1 => 8,
        2 => decode_length_delimiter(&mut message).ok()?,
        5 => 4,
        _ => return None,
    };
    message.get(length..)
}
