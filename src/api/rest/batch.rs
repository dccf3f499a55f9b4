//! `POST /v1/batch`: several puts and deletes, atomic as a whole or shard by shard.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use raftkv_protocol::client::{
    BATCH_OPERATIONS_MAX, Batch, BatchBuffer, BatchOperation, Change, Code, Condition, Operation,
};
use raftkv_protocol::types::{Index, ShardId, Slot};
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::body::{self, json};
use super::problem::{self, Fault};
use super::{Rest, params};
use crate::api::ask::{Outcome, OwnedAnswer, OwnedOperation, OwnedRefusal};
use crate::api::binary;

/// Room in the body for everything of an operation but the base64 of its key and value.
const OPERATION_BYTES: usize = 256;

/// The body.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked<'a> {
    atomic: Option<bool>,
    #[serde(borrow)]
    operations: Operations<'a>,
}

/// The operations as far as any server takes them, and how many there are.
struct Operations<'a> {
    kept: Vec<Op<'a>>,
    count: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Op<'a> {
    op: Kind,
    #[serde(borrow)]
    key: Text<'a>,
    #[serde(borrow)]
    value: Option<Text<'a>>,
    #[serde(borrow)]
    if_match: Option<IfMatch<'a>>,
    #[serde(borrow)]
    if_none_match: Option<Text<'a>>,
}

/// Text as it stands in the body, unless there are escapes in it. (In an option, serde would copy a `Cow` always.)
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Put,
    Delete,
}

/// A version as answers tell it, or `*`.
#[derive(Deserialize)]
#[serde(untagged)]
enum IfMatch<'a> {
    Version(u64),
    #[serde(borrow)]
    Text(Text<'a>),
}

/// The answer: for each operation what it would have been answered alone.
#[derive(Serialize)]
struct Answered {
    results: Vec<Answer>,
}

#[derive(Clone, Serialize)]
#[serde(untagged)]
enum Answer {
    Written { version: u64 },
    Deleted { deleted: bool },
    Refused { status: u16, code: &'static str, detail: String },
}

/// Which operations of the batch a shard has to do with.
#[derive(Default)]
struct Part {
    numbers: Vec<usize>,
    batch: BatchBuffer,
}

/// Writes the batch.
pub async fn post(State(rest): State<Rest>, request: Request) -> Result<Response, Fault> {
    let in_query = params::atomic(request.uri().query())?;
    let limits = &rest.limits;
    let max = limits.batch_bytes_max.div_ceil(3) * 4 + limits.batch_operations_max * OPERATION_BYTES + OPERATION_BYTES;
    let whole = body::read(&rest, request.into_body(), &body::Kind::Batch { max }).await?;
    let asked: Asked<'_> =
        serde_json::from_slice(&whole.bytes).map_err(|error| bad(format!("the body is no batch: {error}")))?;
    let atomic = match (in_query, asked.atomic) {
        (Some(one), Some(other)) if one != other => {
            return Err(bad("`atomic` of the query is not that of the body: say it once").into());
        }
        (one, other) => one.or(other).unwrap_or(true),
    };
    let batch = buffer(&rest, &asked.operations)?;
    let results = if atomic { together(&rest, batch).await? } else { by_shard(&rest, batch.as_batch()).await };
    Ok(json(&rest, &Answered { results }))
}

/// All of it as one entry.
async fn together(rest: &Rest, batch: BatchBuffer) -> Result<Vec<Answer>, OwnedRefusal> {
    let outcome = rest.ask(OwnedOperation::Batch(batch.clone())).await.map_err(|mut refusal| {
        if refusal.code == Code::CrossShard {
            refusal.message.push_str("; with \"atomic\":false each shard's part is written by itself");
        }
        refusal
    });
    answers(rest, batch.as_batch(), outcome)
}

/// Each shard's part as one entry, all at the same time.
async fn by_shard(rest: &Rest, batch: Batch<'_>) -> Vec<Answer> {
    let mut parts: BTreeMap<ShardId, Part> = BTreeMap::new();
    for (number, operation) in batch.operations().enumerate() {
        let part = parts.entry(Slot::of(operation.key).shard(rest.shards)).or_default();
        part.numbers.push(number);
        part.batch.push(&operation).expect("keys of a batch are short enough for a batch");
    }
    let parts: Vec<Part> = parts.into_values().collect();
    let asked = parts.iter().map(|part| rest.ask(OwnedOperation::Batch(part.batch.clone())));
    let outcomes = all(asked.collect()).await;
    let mut results = vec![Answer::Deleted { deleted: false }; batch.len()];
    for (part, outcome) in parts.iter().zip(outcomes) {
        let given = answers(rest, part.batch.as_batch(), outcome).unwrap_or_else(|refusal| {
            let status = problem::status_of(refusal.code).as_u16();
            let refused = Answer::Refused { status, code: refusal.code.name(), detail: refusal.message };
            vec![refused; part.numbers.len()]
        });
        for (number, answer) in part.numbers.iter().zip(given) {
            results[*number] = answer;
        }
    }
    results
}

fn answers(rest: &Rest, batch: Batch<'_>, outcome: Outcome) -> Result<Vec<Answer>, OwnedRefusal> {
    let (at, OwnedAnswer::Batch { existed }) = outcome? else { return Err(rest.unexpected()) };
    let answer = |(number, operation): (usize, BatchOperation<'_>)| match operation.change {
        Change::Put(_) => Answer::Written { version: at.index.0 },
        Change::Delete => Answer::Deleted { deleted: existed.contains(number) },
    };
    Ok(batch.operations().enumerate().map(answer).collect())
}

/// Waits for all of them; they go on side by side.
async fn all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, done) in futures.iter_mut().zip(&mut done) {
            if done.is_none()
                && let Poll::Ready(output) = future.as_mut().poll(context)
            {
                *done = Some(output);
            }
        }
        if done.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

/// The batch, if it is one that the server takes: what goes to several shards must not be refused in part for that.
fn buffer(rest: &Rest, operations: &Operations<'_>) -> Result<BatchBuffer, OwnedRefusal> {
    let refused = |(code, words)| OwnedRefusal::new(code, words);
    binary::check_count(operations.count, &rest.limits).map_err(refused)?;
    let mut batch = BatchBuffer::default();
    for (number, op) in (1..).zip(&operations.kept) {
        let of_this = |words: String| bad(format!("operation {number}: {words}"));
        let key = decode("key", &op.key).map_err(of_this)?;
        let value = op.value.as_ref().map(|value| decode("value", value)).transpose().map_err(of_this)?;
        let change = match (op.op, &value) {
            (Kind::Put, Some(value)) => Change::Put(value),
            (Kind::Delete, None) => Change::Delete,
            (Kind::Put, None) => return Err(of_this("a put needs a `value`".to_owned())),
            (Kind::Delete, Some(_)) => return Err(of_this("a delete has no `value`".to_owned())),
        };
        let condition = condition(op).map_err(of_this)?;
        if batch.push(&BatchOperation { key: &key, condition, change }).is_err() {
            rest.check_key(&key.into())?;
        }
    }
    binary::check(&Operation::Batch(batch.as_batch()), &rest.limits).map_err(refused)?;
    Ok(batch)
}

fn condition(op: &Op<'_>) -> Result<Condition, String> {
    match (&op.if_match, op.if_none_match.as_ref().map(|text| &*text.0)) {
        (None, None) => Ok(Condition::None),
        (Some(IfMatch::Version(version)), None) => Ok(Condition::Version(Index(*version))),
        (Some(IfMatch::Text(Text(text))), None) if text == "*" => Ok(Condition::Exists),
        (Some(IfMatch::Text(Text(text))), None) => {
            let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
            let version = text.parse().ok().filter(|_| is_plain).map(|version| Condition::Version(Index(version)));
            version.ok_or_else(|| "`if_match` must be \"*\" or a version, as in \"7\"".to_owned())
        }
        (None, Some("*")) => Ok(Condition::Absent),
        (None, Some(_)) => Err("`if_none_match` must be \"*\": only if the key does not exist".to_owned()),
        (Some(_), Some(_)) => Err("`if_match` and `if_none_match` exclude each other".to_owned()),
    }
}

fn decode(what: &str, text: &Text<'_>) -> Result<Vec<u8>, String> {
    STANDARD.decode(&*text.0).map_err(|error| format!("the {what} is no base64: {error}"))
}

fn bad(message: impl Into<String>) -> OwnedRefusal {
    OwnedRefusal::new(Code::BadRequest, message)
}

impl<'de: 'a, 'a> Deserialize<'de> for Operations<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Operations<'a>, D::Error> {
        deserializer.deserialize_seq(Collect)
    }
}

/// Keeps no more than any server takes: a short body may list very many.
struct Collect;

impl<'de> Visitor<'de> for Collect {
    type Value = Operations<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of operations")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Operations<'de>, A::Error> {
        let mut operations = Operations { kept: Vec::new(), count: 0 };
        while operations.count < BATCH_OPERATIONS_MAX
            && let Some(op) = list.next_element()?
        {
            operations.kept.push(op);
            operations.count += 1;
        }
        while list.next_element::<IgnoredAny>()?.is_some() {
            operations.count += 1;
        }
        Ok(operations)
    }
}

#[cfg(test)]
mod tests {
    use super::{Asked, Cow, IfMatch, Text};

    /// The strings of the first operation, and whether each stands in the body still.
    fn strings<'a>(asked: &'a Asked<'_>) -> Vec<(&'a str, bool)> {
        let op = &asked.operations.kept[0];
        let Some(IfMatch::Text(if_match)) = &op.if_match else { panic!("it is text") };
        let texts = [&op.key].into_iter().chain(&op.value).chain([if_match]).chain(&op.if_none_match);
        texts.map(|Text(text)| (&**text, matches!(text, Cow::Borrowed(_)))).collect()
    }

    #[test]
    fn text_of_a_body_is_not_copied_where_it_need_not_be() {
        let body = r#"{"operations":[{"op":"put","key":"aw==","value":"dg==","if_match":"7","if_none_match":"*"}]}"#;
        let asked = serde_json::from_str(body).expect("a batch");
        assert_eq!(strings(&asked), [("aw==", true), ("dg==", true), ("7", true), ("*", true)]);
        let escaped = body.replace("dg==", r"d\u0067==");
        let asked = serde_json::from_str(&escaped).expect("a batch");
        assert_eq!(strings(&asked)[1], ("dg==", false));
    }
}
