//! What the node tells of itself over gRPC: its health, and which services there are.

mod support;

use std::time::{Duration, Instant};

use prost::Message;
use tonic::{Code, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus::{self, NotServing, ServiceUnknown, Serving};
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};
use tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient as AlphaClient;

use support::cluster::Cluster;
use support::wait::PATIENCE;
use support::{channel, told};

const SERVICES: [&str; 3] = ["", "raftkv.v1.KV", "raftkv.v1.Cluster"];

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn health_is_what_readyz_says() {
    let mut cluster = Cluster::start(3);
    let mut health = HealthClient::new(channel(&cluster, 1).await);
    let unknown = health.check(of("raftkv.v2.KV")).await.expect_err("there is no such service");
    assert_eq!(told(&unknown), (Code::NotFound, "not_found"));
    for serves in [Serving, NotServing] {
        for service in SERVICES {
            let started = Instant::now();
            while health.check(of(service)).await.expect("a status").into_inner().status() != serves {
                assert!(started.elapsed() < PATIENCE, "`{service}` is not {serves:?}");
            }
        }
        if serves == Serving {
            cluster.kill_9(2);
            cluster.kill_9(3);
        }
    }
}

#[tokio::test]
async fn a_watch_tells_every_change_and_ends_with_the_node() {
    let mut cluster = Cluster::start(3);
    let mut health = HealthClient::new(channel(&cluster, 1).await);
    let mut watch = health.watch(of("raftkv.v1.KV")).await.expect("a watch").into_inner();
    let mut unknown = health.watch(of("raftkv.v2.KV")).await.expect("a watch").into_inner();
    assert_eq!(unknown.message().await.expect("a status").expect("a status").status(), ServiceUnknown);
    let mut seen: Vec<ServingStatus> = Vec::new();
    let mut until = async |expected| {
        while seen.last() != Some(&expected) {
            let status = watch.message().await.expect("a status").expect("a status").status();
            assert_ne!(seen.last(), Some(&status), "it is told when it changes");
            seen.push(status);
        }
    };
    until(Serving).await;
    cluster.kill_9(2);
    cluster.kill_9(3);
    until(NotServing).await;
    cluster.restart_all();
    until(Serving).await;
    // Neither holds up a node that is to stop.
    let process = cluster.process(1);
    process.signal("TERM");
    until(NotServing).await;
    assert!(watch.message().await.expect("an end").is_none());
    assert!(unknown.message().await.expect("an end").is_none());
    drop(health);
    let started = Instant::now();
    while !cluster.process(1).has_ended() {
        assert!(started.elapsed() < Duration::from_secs(3), "the watches hold the node up");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// One question, and its answer.
async fn ask(cluster: &Cluster, question: MessageRequest) -> MessageResponse {
    let request = || ServerReflectionRequest { host: "h".to_owned(), message_request: Some(question.clone()) };
    let requests = || tonic::codegen::tokio_stream::iter([request()]);
    let mut client = ServerReflectionClient::new(channel(cluster, 1).await);
    let answer = one(client.server_reflection_info(requests()).await.expect("a stream").into_inner()).await;
    assert_eq!((answer.valid_host.as_str(), answer.original_request), ("h", Some(request())));
    let mut client = AlphaClient::new(channel(cluster, 1).await);
    let requests = tonic::codegen::tokio_stream::iter([as_written(&request())]);
    let older = one(client.server_reflection_info(requests).await.expect("a stream").into_inner()).await;
    let older: ServerReflectionResponse = as_written(&older);
    assert_eq!(older.message_response, answer.message_response, "both versions tell the same");
    answer.message_response.expect("an answer")
}

/// The message of another version that is written the same.
fn as_written<M: Message + Default>(message: &impl Message) -> M {
    M::decode(&message.encode_to_vec()[..]).expect("the same message")
}

async fn one<M>(mut answers: Streaming<M>) -> M {
    let answer = answers.message().await.expect("an answer").expect("an answer");
    assert!(answers.message().await.expect("the end").is_none());
    answer
}

#[tokio::test]
async fn the_services_are_told() {
    let cluster = Cluster::start(1);
    let MessageResponse::ListServicesResponse(list) = ask(&cluster, MessageRequest::ListServices("*".into())).await
    else {
        panic!("no list");
    };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    let expected = [
        "raftkv.v1.KV",
        "raftkv.v1.Cluster",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ];
    assert_eq!(names, expected);
    for (symbol, file) in expected.map(|name| (name, name.rsplit_once('.').expect("a package").0)).into_iter().chain([
        ("raftkv.v1.KV.Put", "raftkv/v1/kv.proto"),
        ("raftkv.v1.ScanRequest.cursor", "raftkv/v1/kv.proto"),
        ("raftkv.v1.Consistency", "raftkv/v1/kv.proto"),
        ("grpc.health.v1.HealthCheckResponse.ServingStatus", "grpc/health/v1/health.proto"),
    ]) {
        let question = MessageRequest::FileContainingSymbol(symbol.to_owned());
        let MessageResponse::FileDescriptorResponse(files) = ask(&cluster, question).await else {
            panic!("no file with {symbol}");
        };
        let [description] = &files.file_descriptor_proto[..] else { panic!("{files:?}") };
        // The name of the file, or of its package, stands in it.
        assert!(description.windows(file.len()).any(|bytes| bytes == file.as_bytes()), "{symbol} in {file}");
        if file.ends_with(".proto") {
            let by_name = ask(&cluster, MessageRequest::FileByFilename(file.to_owned())).await;
            assert_eq!(by_name, MessageResponse::FileDescriptorResponse(files));
        }
    }
    for unknown in [
        MessageRequest::FileContainingSymbol("raftkv.v1.KV.Pot".to_owned()),
        MessageRequest::FileByFilename("none.proto".to_owned()),
        MessageRequest::AllExtensionNumbersOfType("raftkv.v1.None".to_owned()),
    ] {
        let MessageResponse::ErrorResponse(error) = ask(&cluster, unknown.clone()).await else { panic!("{unknown:?}") };
        assert_eq!(error.error_code, i32::from(Code::NotFound));
    }
}

#[tokio::test]
async fn connections_on_which_the_node_waits_do_not_rest() {
    let cluster = Cluster::of(1).flag("--http-idle-timeout=1s").start();
    let mut health = HealthClient::new(channel(&cluster, 1).await);
    let mut watch = health.watch(of("")).await.expect("a watch").into_inner();
    while watch.message().await.expect("a status").expect("a status").status() != Serving {}
    let gone = tokio::time::timeout(Duration::from_secs(3), watch.message()).await;
    assert!(gone.is_err(), "the watch goes on: {gone:?}");
}
