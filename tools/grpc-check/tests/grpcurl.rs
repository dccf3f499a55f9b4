//! The documents' examples with grpcurl, run as they stand by what grpcurl itself goes by: server reflection, and JSON
//! for messages. Of a version only that there is one is compared.

mod support;

use std::path::Path;

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::Value;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::tokio_stream;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use support::cluster::Cluster;
use support::{channel, kv, put};

/// A command, and what the document says that it prints.
struct Example {
    command: String,
    output: String,
}

/// The examples of a document, in its order.
fn examples(document: &str) -> Vec<Example> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(document);
    let text = std::fs::read_to_string(path).expect("a document");
    let blocks = text.split("\n```console\n").skip(1).map(|rest| rest.split("\n```").next().expect("an end"));
    let commands = blocks.flat_map(|block| block.strip_prefix("$ ").expect("a command first").split("\n$ "));
    let example = |command: &str| {
        let (command, output) = command.split_once('\n').unwrap_or((command, ""));
        Example { command: command.to_owned(), output: output.to_owned() }
    };
    commands.map(example).filter(|example| example.command.starts_with("grpcurl ")).collect()
}

/// The words of a command, in which no quotes stand within quotes.
fn words(command: &str) -> Vec<&str> {
    let parts = command.split('\'').enumerate();
    parts.flat_map(|(at, part)| if at % 2 == 1 { vec![part] } else { part.split_whitespace().collect() }).collect()
}

/// A message as bytes, whatever it is.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

async fn ask(channel: Channel, question: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let mut client = ServerReflectionClient::new(channel);
    let answers = client.server_reflection_info(tokio_stream::iter([request])).await;
    let answer = answers.expect("a stream").into_inner().message().await.expect("an answer").expect("an answer");
    answer.message_response.expect("an answer")
}

async fn list(channel: Channel) -> String {
    let MessageResponse::ListServicesResponse(list) = ask(channel, MessageRequest::ListServices("*".into())).await
    else {
        panic!("no list");
    };
    let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    names.join("\n")
}

async fn call(channel: Channel, service: &str, method: &str, json: &str) -> Vec<Value> {
    let question = MessageRequest::FileContainingSymbol(service.to_owned());
    let MessageResponse::FileDescriptorResponse(files) = ask(channel.clone(), question).await else {
        panic!("no file with {service}");
    };
    let mut pool = DescriptorPool::new();
    for file in files.file_descriptor_proto {
        pool.decode_file_descriptor_proto(&file[..]).expect("a description");
    }
    let described = pool.get_service_by_name(service).expect("a service");
    let described = described.methods().find(|each| each.name() == method).expect("a method");
    let mut json = serde_json::Deserializer::from_str(json);
    let request = DynamicMessage::deserialize(described.input(), &mut json).expect("a request");
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.expect("a connection");
    let path = PathAndQuery::from_maybe_shared(format!("/{service}/{method}")).expect("a path");
    let request = Request::new(Bytes::from(request.encode_to_vec()));
    let mut answers = client.server_streaming(request, path, Raw).await.expect("an answer").into_inner();
    let mut printed = Vec::new();
    while let Some(answer) = answers.message().await.expect("an answer") {
        let answer = DynamicMessage::decode(described.output(), answer).expect("what is described");
        printed.push(serde_json::to_value(&answer).expect("JSON"));
    }
    printed
}

/// What is printed, but for the numbers of versions.
fn without_versions(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                *field = if name == "version" { Value::Null } else { without_versions(field.take()) };
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_versions(item.take())),
        _ => {}
    }
    value
}

async fn run(cluster: &Cluster, example: &Example) {
    let words = words(&example.command);
    let (json, address, what) = match words[..] {
        ["grpcurl", "-plaintext", "-d", json, address, what] => (json, address, what),
        ["grpcurl", "-plaintext", address, what] => ("{}", address, what),
        _ => panic!("what does `{}` do?", example.command),
    };
    let node = address.strip_prefix("127.0.0.1:800").and_then(|id| id.parse().ok()).expect("a node of the quick start");
    let channel = channel(cluster, node).await;
    let Some((service, method)) = what.split_once('/') else {
        assert_eq!((what, list(channel).await.as_str()), ("list", example.output.as_str()));
        return;
    };
    let printed = call(channel, service, method, json).await;
    let shown = serde_json::Deserializer::from_str(&example.output).into_iter::<Value>();
    let shown: Vec<Value> = shown.map(|value| without_versions(value.expect("JSON"))).collect();
    assert_eq!(printed.into_iter().map(without_versions).collect::<Vec<_>>(), shown, "{}", example.command);
}

#[tokio::test]
async fn the_examples_with_grpcurl_print_what_the_documents_show() {
    let cluster = Cluster::start(3);
    // As the README has done before it comes to gRPC.
    kv(&cluster, 1).await.put(put("color", "blue")).await.expect("a put");
    for document in ["README.md", "docs/grpc.md"] {
        let examples = examples(document);
        assert!(!examples.is_empty(), "{document} shows none");
        for example in &examples {
            run(&cluster, example).await;
        }
    }
}
