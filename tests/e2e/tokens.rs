//! SASL OAUTHBEARER: tokens that an identity provider signs, the broker checks, and a connection does not outlive.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    stack_or_skip,
    support::{
        app::{Answer, App, Delivery},
        eventually,
        stack::{Oidc, Stack},
        unique,
        worker::{Launch, Worker},
    },
};

const LONG: Duration = Duration::from_secs(60);
/// What a token lives for: several lives pass in a test.
const LIFE: u64 = 10;
/// `worker:s3cr3t/+`, each encoded as RFC 6749 says, then in base64.
const BASIC: &str = "Basic d29ya2VyOnMzY3IzdCUyRiUyQg==";

/// Base64 of a signature over `text` (RS256).
fn sign(key: &str, text: &str) -> String {
    let mut openssl =
        Command::new("openssl").args(["dgst", "-sha256", "-sign", key]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    openssl.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    URL_SAFE_NO_PAD.encode(openssl.wait_with_output().unwrap().stdout)
}

/// A token as the provider signs it.
fn token(key: &str, life: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let header = URL_SAFE_NO_PAD.encode("{\"alg\":\"RS256\",\"kid\":\"tests\"}");
    let claims = format!(
        "{{\"iss\":\"http://issuer.tests\",\"aud\":\"kafka\",\"sub\":\"worker\",\"scope\":\"openid\",\"iat\":{now},\"exp\":{}}}",
        now + life
    );
    let text = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
    let signature = sign(key, &text);
    format!("{text}.{signature}")
}

/// How the provider answers at the moment: `None` with a token, else with that status and body.
type Trouble = Arc<Mutex<Option<(u16, &'static str)>>>;

/// An identity provider that gives tokens to who asks as it should.
async fn provider(oidc: &Oidc, trouble: &Trouble) -> App {
    let (key, trouble) = (oidc.key.clone(), Arc::clone(trouble));
    App::start(move |request: &Delivery| {
        if let Some((status, body)) = *trouble.lock().unwrap() {
            return Answer::json(body).with_status(status);
        }
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let asks = request.path == "/token" && body == "grant_type=client_credentials&scope=openid+kafka";
        match request.headers.get("authorization") {
            Some(given) if asks && given == BASIC => {
                Answer::json(&format!("{{\"access_token\":\"{}\",\"token_type\":\"Bearer\",\"expires_in\":{LIFE}}}", token(&key, LIFE)))
            }
            _ => Answer::json("{\"error\":\"invalid_client\"}").with_status(401),
        }
    })
    .await
}

fn properties(oidc: &Oidc, provider: &App) -> Vec<String> {
    [
        "security.protocol=sasl_ssl",
        "sasl.mechanism=OAUTHBEARER",
        "sasl.oauthbearer.method=oidc",
        "sasl.oauthbearer.client.id=worker",
        "sasl.oauthbearer.client.secret=s3cr3t/+",
        "sasl.oauthbearer.scope=openid kafka",
        "sasl.oauthbearer.extensions=logicalCluster=lkc-1",
    ]
    .into_iter()
    .map(str::to_owned)
    .chain([format!("sasl.oauthbearer.token.endpoint.url={}", provider.url("/token")), format!("ssl.ca.location={}", oidc.ca)])
    .flat_map(|property| ["-X".to_owned(), property])
    .collect()
}

fn with_tokens(launch: Launch, oidc: &Oidc, provider: &App) -> Launch {
    properties(oidc, provider).iter().fold(launch, |launch, arg| launch.arg(arg)).env("WORKER_KAFKA__BROKERS", &oidc.brokers)
}

async fn publish(worker: &Worker, topic: &str, id: &str) -> u16 {
    let event = format!("{{\"event_id\":\"{id}\",\"event_type\":\"task.completed\",\"user_id\":\"user-1\",\"task_id\":1}}");
    let request =
        reqwest::Client::new().post(worker.publish_url(&format!("/events?topic={topic}"))).header("content-type", "application/json");
    request.body(event).send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_a_provider_log_every_client_in_and_are_renewed_before_they_end() {
    let stack = stack_or_skip!(Stack::private_with_oidc());
    let oidc = stack.oidc();
    let trouble = Trouble::default();
    let idp = provider(&oidc, &trouble).await;
    let (topic, dlq) = (unique("tokens"), unique("dlq"));
    stack.kafka().create_topic(&topic, 2, &[]).await;
    stack.kafka().create_topic(&dlq, 1, &[]).await;
    // One event fails for good, so that the consumer writes too.
    let app = App::start(|delivery| Answer::status(if delivery.headers["idempotency-key"] == "bad" { 422 } else { 200 })).await;
    let toml = format!(
        "[kafka]\ntopics = [\"{topic}\"]\n[dlq]\ntopic = \"{dlq}\"\n[[handlers]]\nname = \"app\"\nkind = \"http\"\nurl = \"{}\"\n",
        app.url("/")
    );
    let group = unique("group");
    let mut consumer = with_tokens(Launch::role("consumer", &stack, &group, &toml), &oidc, &idp).start_ready().await;
    let mut producer = with_tokens(Launch::role("producer", &stack, "tokens", ""), &oidc, &idp).start_ready().await;

    // More than two lives: the broker closes a connection whose token is over, so nothing would pass after the first.
    let end = std::time::Instant::now() + Duration::from_secs(5 * LIFE / 2);
    let mut sent = 0;
    while std::time::Instant::now() < end || sent <= 20 {
        let id = if sent == 20 { "bad".to_owned() } else { format!("e-{sent}") };
        assert_eq!(publish(&producer, &topic, &id).await, 202, "{}", producer.log());
        sent += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
        for worker in [&consumer, &producer] {
            assert_eq!(worker.get("/readyz").await.unwrap().0, 200, "{}", worker.log());
        }
    }
    app.wait_for(sent, LONG).await;
    assert_eq!(stack.kafka().wait_for_records(&dlq, 1, LONG).await[0].header("x-dlq-event-id"), Some("bad"));
    stack.kafka().wait_until_committed(&group, &topic, LONG).await;
    assert!(idp.deliveries().len() >= 6, "each process renews its token: {}", idp.deliveries().len());

    // Tools log in with tokens too.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("worker.toml");
    std::fs::write(&file, &toml).unwrap();
    let tool = |args: &[&str]| {
        let args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).chain(["-c".to_owned(), file.display().to_string()]).collect();
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_worker"));
        command.args(args).args(properties(&oidc, &idp)).env("WORKER_KAFKA__BROKERS", &oidc.brokers).current_dir(folder.path());
        async move {
            let output = command.output().await.unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        }
    };
    assert!(tool(&["dlq", "ls", "-o", "ndjson"]).await.contains("\"bad\""));
    assert!(tool(&["events", "tail", "--topic", &topic, "--from", "beginning", "--limit", "1", "-o", "ndjson"]).await.contains("e-0"));

    for worker in [&mut consumer, &mut producer] {
        assert_eq!(worker.terminate(LONG).await, Some(0));
        let log = worker.log();
        assert!(!log.contains("s3cr3t") && !log.contains("eyJ"), "no secret and no token in the log: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_provider_gives_no_token_the_worker_says_why_and_goes_on_when_it_does() {
    let stack = stack_or_skip!(Stack::private_with_oidc());
    let oidc = stack.oidc();
    let trouble: Trouble =
        Arc::new(Mutex::new(Some((401, "{\"error\":\"invalid_client\",\"error_description\":\"no such user: s3cr3t\"}"))));
    let idp = provider(&oidc, &trouble).await;
    let topic = unique("tokens");
    stack.kafka().create_topic(&topic, 1, &[]).await;

    // Asked to give up, it does, with the provider's own word for it.
    let launch = || with_tokens(Launch::role("producer", &stack, "tokens", ""), &oidc, &idp);
    let mut impatient = launch().arg("--exit-if-unreachable").arg("3s").start();
    assert_eq!(impatient.ended(LONG).await.code(), Some(1));
    let log = impatient.log();
    assert!(log.contains("no token to log in to Kafka with") && log.contains("401 Unauthorized: invalid_client"), "{log}");
    assert!(log.contains(&idp.url("/token")) && !log.contains("s3cr3t"), "{log}");

    // Else it waits, and is not ready meanwhile.
    *trouble.lock().unwrap() = Some((503, "later"));
    let mut producer = launch().start();
    eventually("it says that there is no token", LONG, async || producer.log().contains("503 Service Unavailable").then_some(())).await;
    assert_eq!(producer.get("/readyz").await.unwrap().0, 503);
    *trouble.lock().unwrap() = None;
    producer.ready(LONG).await;
    assert_eq!(publish(&producer, &topic, "before").await, 202);

    // Away for longer than a token lives: no yes without the log, and a yes again when it is back.
    *trouble.lock().unwrap() = Some((503, "later"));
    eventually("not ready without a token", LONG, async || (producer.get("/readyz").await?.0 == 503).then_some(())).await;
    assert_eq!(publish(&producer, &topic, "meanwhile").await, 503);
    *trouble.lock().unwrap() = None;
    producer.ready(LONG).await;
    assert_eq!(publish(&producer, &topic, "after").await, 202);
    let ids: Vec<_> =
        stack.kafka().read_all(&topic).await.iter().map(|record| record.json()["event_id"].as_str().unwrap().to_owned()).collect();
    assert!(ids.starts_with(&["before".to_owned()]) && ids.ends_with(&["after".to_owned()]), "{ids:?}");
    assert!(producer.log().contains("the token endpoint gives tokens again"));
    assert_eq!(producer.terminate(LONG).await, Some(0));
}
