//! What pods become, and what stands in the way.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::annotations::Refused;
use super::pod::{Asked, Done, Injection, inject};
use super::review;

fn pod(spec: Value, annotations: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "agent", "labels": {"openbox.ai/inject": "enabled"}, "annotations": annotations},
        "spec": spec,
    })
}

fn app() -> Value {
    json!({"containers": [{"name": "app", "image": "app:1"}]})
}

fn injected(mut pod: Value) -> (Value, Vec<String>) {
    match inject(&mut pod, &Injection::default(), Asked::ByLabel).unwrap() {
        Done::Injected(warnings) => (pod, warnings),
        Done::Left(why) => panic!("left: {why}"),
    }
}

fn refused(pod: Value) -> String {
    let mut pod = pod;
    let refused = inject(&mut pod, &Injection::default(), Asked::ByLabel);
    refused.expect_err("it is taken").to_string()
}

fn variable<'p>(pod: &'p Value, container: &str, name: &str) -> Option<&'p Value> {
    let mut all = pod.pointer(container)?.get("env")?.as_array()?.iter();
    all.find(|entry| entry["name"] == name)
}

#[test]
fn the_sidecar_is_the_first_container_and_stays() {
    let spec = json!({
        "initContainers": [{"name": "migrate", "image": "m"}],
        "containers": [{"name": "app", "image": "app:1"}],
    });
    let (pod, warnings) = injected(pod(spec, json!({})));
    let first = &pod["spec"]["initContainers"][0];
    assert_eq!(
        (&first["name"], &first["restartPolicy"]),
        (&json!("openbox-sidecar"), &json!("Always"))
    );
    assert_eq!(first["startupProbe"]["httpGet"]["path"], "/readyz");
    assert_eq!(first["securityContext"]["runAsUser"], 1580);
    assert_eq!(pod["spec"]["initContainers"][1]["name"], "migrate");
    assert_eq!(
        pod["metadata"]["annotations"]["openbox.ai/injected"],
        env!("CARGO_PKG_VERSION")
    );
    // What is before the app goes through the sidecar like the app.
    for container in ["/spec/initContainers/1", "/spec/containers/0"] {
        let proxy = variable(&pod, container, "HTTPS_PROXY").unwrap();
        assert_eq!(proxy["value"], "http://127.0.0.1:15801", "{container}");
        let ca = variable(&pod, container, "SSL_CERT_FILE").unwrap();
        assert_eq!(ca["value"], "/openbox/bundle.pem", "{container}");
        let mount = &pod.pointer(container).unwrap()["volumeMounts"][0];
        assert_eq!(
            (&mount["mountPath"], &mount["readOnly"]),
            (&json!("/openbox"), &json!(true))
        );
    }
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn a_token_of_a_secret_is_the_sidecars_and_the_apps() {
    let annotations = json!({"openbox.ai/agent-token-secret": "agent/token"});
    let mut spec = app();
    spec["containers"][0]["env"] = json!([{"name": "OPENBOX_API_KEY", "value": "obx_live_core"}]);
    let (pod, _) = injected(pod(spec, annotations));
    let sidecar = variable(&pod, "/spec/initContainers/0", "OPENBOX_AGENT_TOKEN_FILE").unwrap();
    assert_eq!(sidecar["value"], "/etc/openbox/agent-token/agent-token");
    let secret = json!({"secretKeyRef": {"name": "agent", "key": "token"}});
    for name in ["OPENBOX_API_KEY", "OPENBOX_SIDECAR_TOKEN"] {
        let entry = variable(&pod, "/spec/containers/0", name).unwrap();
        assert_eq!(entry, &json!({"name": name, "valueFrom": secret}));
    }
    let names = |name: &str| {
        let all = pod["spec"]["containers"][0]["env"].as_array().unwrap();
        all.iter().filter(|entry| entry["name"] == name).count()
    };
    assert_eq!(names("OPENBOX_API_KEY"), 1);
    assert_eq!(injected(pod.clone()).0, pod, "again, it is the same");
}

#[test]
fn a_secret_of_credentials_is_mounted_by_the_sidecar_alone() {
    let annotations = json!({"openbox.ai/credentials-secret": "keys"});
    let from = |secret: &str| json!({"secretKeyRef": {"name": secret, "key": "k"}});
    let mut spec = app();
    spec["volumes"] = json!([{"name": "theirs", "secret": {"secretName": "keys"}}]);
    spec["containers"][0]["env"] = json!([
        {"name": "KEY", "valueFrom": from("keys")},
        {"name": "OTHER", "valueFrom": from("others")},
    ]);
    spec["containers"][0]["envFrom"] =
        json!([{"secretRef": {"name": "keys"}}, {"secretRef": {"name": "others"}}]);
    let (pod, warnings) = injected(pod(spec, annotations));
    let told: Vec<_> = warnings
        .iter()
        .map(|one| one.split(" is of ").next().unwrap())
        .collect();
    assert_eq!(
        told,
        [
            "volume theirs",
            "container app: KEY",
            "container app: envFrom"
        ]
    );
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    let ours = volumes
        .iter()
        .find(|volume| volume["name"] == "openbox-credentials");
    assert_eq!(
        ours.unwrap()["secret"],
        json!({"secretName": "keys", "defaultMode": 0o444})
    );
    let mount = json!({"name": "openbox-credentials", "mountPath": "/etc/openbox/credentials", "readOnly": true});
    let mounts = |container: &str| {
        pod.pointer(container).unwrap()["volumeMounts"]
            .as_array()
            .unwrap()
            .contains(&mount)
    };
    assert!(mounts("/spec/initContainers/0") && !mounts("/spec/containers/0"));
    assert_eq!(injected(pod.clone()).0, pod, "again, it is the same");
}

#[test]
fn the_app_finds_the_agent_api_at_a_path_that_it_may_open() {
    let (pod, _) = injected(pod(app(), json!({})));
    let at =
        |container: &str, name: &str| variable(&pod, container, name).unwrap()["value"].clone();
    let app = at("/spec/containers/0", "OPENBOX_SIDECAR_SOCKET");
    assert_eq!(app, at("/spec/initContainers/0", "OPENBOX_AGENT_SOCKET"));
    assert_eq!(
        at("/spec/initContainers/0", "OPENBOX_AGENT_SOCKET_MODE"),
        "0666"
    );
    assert_eq!(app, "/openbox/agent.sock");
}

fn confined() -> Value {
    json!({"containers": [{"name": "app", "image": "app:1", "securityContext": {
        "runAsUser": 4711, "allowPrivilegeEscalation": false,
    }}]})
}

#[test]
fn in_mode_redirect_the_rules_are_set_before_everything_and_the_sidecar_listens_for_them() {
    let redirect = json!({"openbox.ai/mode": "redirect"});
    let (pod, _) = injected(pod(confined(), redirect));
    let all = pod["spec"]["initContainers"].as_array().unwrap();
    let names: Vec<_> = all.iter().map(|container| &container["name"]).collect();
    assert_eq!(names, ["openbox-init-net", "openbox-sidecar"]);
    let may = all
        .iter()
        .filter(|container| container["securityContext"]["capabilities"]["add"].is_array());
    assert_eq!(may.count(), 1, "the rules' container alone may");
    assert!(all[0].get("restartPolicy").is_none(), "it ends");
    let listens = variable(&pod, "/spec/initContainers/1", "OPENBOX_TRANSPARENT_LISTEN").unwrap();
    assert_eq!(listens["value"], "127.0.0.1:15802");
    let operator = variable(&pod, "/spec/initContainers/1", "OPENBOX_OPERATOR_LISTEN").unwrap();
    assert_eq!(operator["value"], "127.0.0.1:15810");
    assert_eq!(injected(pod.clone()).0, pod, "again, it is the same");
}

#[test]
fn in_mode_redirect_a_pod_that_could_undo_it_is_refused() {
    let redirect = || json!({"openbox.ai/mode": "redirect"});
    let told = refused(pod(app(), redirect()));
    assert!(
        told.contains("container app: it runs as whom its image says"),
        "{told}"
    );
    let mut by_image = confined();
    by_image["containers"][0]["securityContext"]["runAsUser"] = Value::Null;
    by_image["containers"][0]["securityContext"]["runAsNonRoot"] = json!(true);
    let told = refused(pod(by_image, redirect()));
    assert!(told.contains("runAsUser is not said"), "{told}");
    let mut taken = confined();
    taken["containers"][0]["ports"] = json!([{"containerPort": 15802}]);
    let told = refused(pod(taken, redirect()));
    assert!(
        told.contains("port 15802, on which the sidecar listens"),
        "{told}"
    );
}

#[test]
fn the_authoritys_key_is_seen_by_the_sidecar_alone() {
    let (pod, _) = injected(pod(app(), json!({})));
    let mounts = |pointer: &str| -> Vec<String> {
        let all = pod.pointer(pointer).unwrap()["volumeMounts"]
            .as_array()
            .unwrap()
            .iter();
        all.map(|mount| mount["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(mounts("/spec/containers/0"), ["openbox-share"]);
    assert_eq!(
        mounts("/spec/initContainers/0"),
        ["openbox-share", "openbox-state", "openbox-keys"]
    );
    let ca = variable(&pod, "/spec/initContainers/0", "OPENBOX_CA_DIR").unwrap();
    assert_eq!(ca["value"], "/run/openbox-sidecar/ca");
}

#[test]
fn injected_again_it_is_the_same_and_what_came_later_is_sent_through_too() {
    let annotations = json!({
        "openbox.ai/pg": "postgres://orders-db:5432",
        "openbox.ai/core-url": "https://core.test",
        "openbox.ai/api-key-secret": "core/key",
        "openbox.ai/journal-claim": "journal",
    });
    let (once, _) = injected(pod(app(), annotations));
    let (twice, _) = injected(once.clone());
    assert_eq!(once, twice);
    let mut with_another = once;
    let containers = with_another["spec"]["containers"].as_array_mut().unwrap();
    containers.push(json!({"name": "late", "image": "late:1"}));
    let (pod, _) = injected(with_another);
    assert!(variable(&pod, "/spec/containers/1", "HTTP_PROXY").is_some());
    assert_eq!(pod["spec"]["initContainers"].as_array().unwrap().len(), 1);
}

#[test]
fn the_apps_databases_lead_to_the_sidecar_and_what_cannot_be_read_is_told() {
    let from_secret = json!({"secretKeyRef": {"name": "db", "key": "host"}});
    let spec = json!({"containers": [{"name": "app", "image": "app:1", "env": [
        {"name": "DATABASE_URL", "value": "postgres://me:$(PASSWORD)@orders-db:5432/orders?sslmode=require"},
        {"name": "PGHOST", "valueFrom": from_secret},
        {"name": "OTHER", "value": "$(DATABASE_URL)"},
    ]}]});
    let (pod, warnings) = injected(pod(
        spec,
        json!({"openbox.ai/pg": "postgres://orders-db:5432"}),
    ));
    let of_app = |name: &str| variable(&pod, "/spec/containers/0", name).unwrap();
    assert_eq!(
        of_app("DATABASE_URL")["value"],
        "postgres://me:$(PASSWORD)@127.0.0.1:15432/orders?sslmode=disable"
    );
    assert_eq!(of_app("PGHOST")["valueFrom"], from_secret);
    assert_eq!(of_app("OTHER")["value"], "$(DATABASE_URL)");
    assert!(
        warnings[0].contains("container app: PGHOST comes from a Secret"),
        "{warnings:?}"
    );
    let sidecar = variable(&pod, "/spec/initContainers/0", "OPENBOX_PG").unwrap();
    assert_eq!(sidecar["value"], "postgres://orders-db:5432");
}

#[test]
fn the_apps_mysql_leads_to_the_sidecar() {
    let spec = json!({"containers": [{"name": "app", "image": "app:1", "env": [
        {"name": "DATABASE_URL", "value": "mysql://me:$(PASSWORD)@shop-db/shop"},
        {"name": "MYSQL_HOST", "value": "shop-db"},
    ]}]});
    let (pod, _) = injected(pod(spec, json!({"openbox.ai/mysql": "mysql://shop-db"})));
    let of_app = |name: &str| variable(&pod, "/spec/containers/0", name).unwrap();
    assert_eq!(
        of_app("DATABASE_URL")["value"],
        "mysql://me:$(PASSWORD)@127.0.0.1:13306/shop"
    );
    assert_eq!(of_app("MYSQL_HOST")["value"], "127.0.0.1");
    assert_eq!(of_app("MYSQL_TCP_PORT")["value"], "13306");
    let sidecar = variable(&pod, "/spec/initContainers/0", "OPENBOX_MYSQL").unwrap();
    assert_eq!(sidecar["value"], "mysql://shop-db");
}

#[test]
fn cores_key_goes_to_the_sidecar_and_not_to_the_app() {
    let spec = json!({"containers": [{"name": "app", "image": "app:1", "env": [
        {"name": "OPENBOX_API_KEY", "valueFrom": {"secretKeyRef": {"name": "core", "key": "key"}}},
    ]}]});
    let annotations = json!({"openbox.ai/core-url": "https://core.test", "openbox.ai/api-key-secret": "core/key"});
    let (pod, _) = injected(pod(spec, annotations));
    assert_eq!(
        variable(&pod, "/spec/containers/0", "OPENBOX_API_KEY"),
        None
    );
    let token = variable(&pod, "/spec/containers/0", "OPENBOX_SIDECAR_TOKEN_FILE").unwrap();
    assert_eq!(token["value"], "/openbox/agent-token");
    let file = variable(&pod, "/spec/initContainers/0", "OPENBOX_API_KEY_FILE").unwrap();
    assert_eq!(file["value"], "/etc/openbox/api-key/api-key");
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    let secret = volumes
        .iter()
        .find(|volume| volume["name"] == "openbox-api-key")
        .unwrap();
    assert_eq!(secret["secret"]["secretName"], "core");
    assert_eq!(
        secret["secret"]["items"],
        json!([{"key": "key", "path": "api-key"}])
    );
}

#[test]
fn only_the_containers_that_are_named_are_sent_through() {
    let spec = json!({"containers": [{"name": "app"}, {"name": "metrics"}]});
    let (both, _) = injected(pod(spec.clone(), json!({"openbox.ai/containers": "app"})));
    assert!(variable(&both, "/spec/containers/0", "HTTP_PROXY").is_some());
    assert_eq!(both["spec"]["containers"][1], json!({"name": "metrics"}));
    let told = refused(pod(spec, json!({"openbox.ai/containers": "app, web"})));
    assert!(
        told.contains("annotation openbox.ai/containers names \"web\"; the pod has app, metrics"),
        "{told}"
    );
}

#[test]
fn a_pod_that_cannot_be_governed_is_refused_with_what_stands_in_the_way() {
    let with = |change: Value| {
        let mut spec = app();
        let (spec_map, change) = (spec.as_object_mut().unwrap(), change);
        spec_map.extend(change.as_object().unwrap().clone());
        pod(spec, json!({}))
    };
    for (change, told) in [
        (json!({"hostNetwork": true}), "spec.hostNetwork is true"),
        (
            json!({"securityContext": {"runAsUser": 1580}}),
            "spec.securityContext.runAsUser is 1580",
        ),
        (
            json!({"containers": [{"name": "app", "securityContext": {"runAsUser": 1580}}]}),
            "container app: securityContext.runAsUser is 1580",
        ),
        (
            json!({"securityContext": {"supplementalGroups": [1580]}}),
            "spec.securityContext.supplementalGroups has 1580",
        ),
        (
            json!({"initContainers": [{"name": "first", "securityContext": {"runAsGroup": 1580}}]}),
            "container first: securityContext.runAsGroup is 1580",
        ),
        (
            json!({"containers": [{"name": "app", "ports": [{"containerPort": 15801}]}]}),
            "container app has port 15801",
        ),
        (
            json!({"initContainers": [{"name": "openbox-sidecar"}]}),
            "there is a container openbox-sidecar already",
        ),
        (
            json!({"volumes": [{"name": "openbox-share"}]}),
            "there is a volume openbox-share already",
        ),
        (
            json!({"containers": "app"}),
            "spec.containers is no list of containers",
        ),
        (
            json!({"containers": [{"name": "app", "env": {"A": "b"}}]}),
            "spec.containers.0.env is no list",
        ),
        (json!({"volumes": [1]}), "spec.volumes is no list"),
    ] {
        let found = refused(with(change));
        assert!(found.contains(told), "{told}: {found}");
    }
    let mut labelled = pod(app(), json!({}));
    labelled["metadata"]["labels"]["openbox.ai/inject"] = json!("perhaps");
    assert!(refused(labelled).contains("label openbox.ai/inject is \"perhaps\""));
}

/// Of a new pod and of one that says that it has a sidecar, to the webhook and by hand.
fn refused_everywhere(spec: &Value, more: &Value) -> Vec<String> {
    let mut told = Vec::new();
    for said in [false, true] {
        let mut annotations = more.clone();
        if said {
            annotations["openbox.ai/injected"] = json!("0.1.0");
        }
        for asked in [Asked::ByLabel, Asked::ByHand] {
            let mut pod = pod(spec.clone(), annotations.clone());
            let refused = inject(&mut pod, &Injection::default(), asked);
            told.push(refused.expect_err("it is taken").to_string());
        }
    }
    told
}

#[test]
fn what_is_the_sidecars_alone_is_mounted_by_no_app() {
    let container = |volume: &str| json!({"name": "app", "volumeMounts": [{"name": volume, "mountPath": "/x"}]});
    for volume in [
        "openbox-state",
        "openbox-keys",
        "openbox-config",
        "openbox-policy",
        "openbox-api-key",
        "openbox-agent-token",
        "openbox-credentials",
    ] {
        let expected = format!("container app mounts volume {volume}, ");
        let apps = json!({"containers": [container(volume)]});
        let first =
            json!({"containers": [{"name": "main"}], "initContainers": [container(volume)]});
        let later =
            json!({"containers": [{"name": "main"}], "ephemeralContainers": [container(volume)]});
        for spec in [apps, first, later] {
            for told in refused_everywhere(&spec, &json!({})) {
                assert!(told.contains(&expected), "{told}");
            }
        }
        // Nor by one that is not sent through the sidecar.
        let other = json!({"containers": [{"name": "main"}, container(volume)]});
        let only_main = json!({"openbox.ai/containers": "main"});
        for told in refused_everywhere(&other, &only_main) {
            assert!(told.contains(&expected), "{told}");
        }
    }
    let shared = pod(
        json!({"containers": [container("openbox-share")]}),
        json!({}),
    );
    let (shared, _) = injected(shared);
    assert_eq!(
        shared["spec"]["containers"][0]["volumeMounts"],
        json!([{"name": "openbox-share", "mountPath": "/openbox", "readOnly": true}])
    );
}

#[test]
fn what_the_sidecar_keeps_does_not_come_to_the_app_by_another_name() {
    let claim = |claim: &str| json!({"containers": [{"name": "app"}], "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]});
    let journal = json!({"openbox.ai/journal-claim": "journal"});
    for told in refused_everywhere(&claim("journal"), &journal) {
        assert!(
            told.contains("volume data is the claim of annotation openbox.ai/journal-claim"),
            "{told}"
        );
    }
    let (taken, warnings) = injected(pod(claim("data"), journal));
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(injected(taken.clone()).0, taken);

    let from = |secret: &str, key: &str| json!({"secretKeyRef": {"name": secret, "key": key}});
    let spec = json!({
        "containers": [{"name": "app", "env": [
            {"name": "OPENBOX_API_KEY", "valueFrom": from("core", "key")},
            {"name": "THEIRS", "valueFrom": from("core", "other")},
            {"name": "ELSEWHERE", "valueFrom": from("others", "key")},
            {"name": "CORE_KEY", "valueFrom": from("core", "key")},
        ]}],
        "volumes": [
            {"name": "keys", "secret": {"secretName": "core"}},
            {"name": "more", "secret": {"secretName": "others"}},
        ],
    });
    let core = json!({"openbox.ai/core-url": "https://core.test", "openbox.ai/api-key-secret": "core/key"});
    let (_, warnings) = injected(pod(spec, core));
    let told: Vec<_> = warnings
        .iter()
        .map(|one| one.split(" is of ").next().unwrap())
        .collect();
    assert_eq!(told, ["volume keys", "container app: CORE_KEY"]);
}

#[test]
fn a_pod_that_says_that_it_has_a_sidecar_is_checked_all_the_same() {
    let security = json!({"runAsUser": 1580});
    for name in ["openbox-sidecar", "openbox-init-net"] {
        let posing = json!({
            "name": name,
            "securityContext": security,
            "ports": [{"containerPort": 15801}],
            "volumeMounts": [{"name": "openbox-keys", "mountPath": "/k"}],
        });
        for of in ["containers", "ephemeralContainers"] {
            let mut spec = app();
            let there = spec.as_object_mut().unwrap().entry(of).or_insert(json!([]));
            there.as_array_mut().unwrap().push(posing.clone());
            for mode in ["cooperative", "redirect"] {
                for told in refused_everywhere(&spec, &json!({"openbox.ai/mode": mode})) {
                    for expected in [
                        format!("there is a container {name} already, in spec.{of}"),
                        format!("container {name}: securityContext.runAsUser is 1580"),
                        format!("container {name} has port 15801"),
                        format!("container {name} mounts volume openbox-keys"),
                    ] {
                        assert!(told.contains(&expected), "{expected}: {told}");
                    }
                    let confined = told.contains(&format!("container {name}: it may"));
                    assert_eq!(confined, mode == "redirect", "{told}");
                }
            }
        }
        // Where the injector puts ours, ours is what is there afterwards.
        let mut spec = app();
        spec["initContainers"] = json!([posing]);
        let said = json!({"openbox.ai/injected": "0.1.0"});
        let (found, _) = injected(pod(spec, said));
        assert_eq!(found, injected(pod(app(), json!({}))).0);
    }
}

#[test]
fn the_sidecar_ends_within_the_pods_grace_or_the_pod_is_refused() {
    let said = |grace: Value, annotations: Value| {
        let mut spec = app();
        spec["terminationGracePeriodSeconds"] = grace;
        pod(spec, annotations)
    };
    let drains = |pod: Value| {
        let (pod, warnings) = injected(pod);
        let set = variable(&pod, "/spec/initContainers/0", "OPENBOX_DRAIN_WITHIN");
        let set = set.map(|entry| entry["value"].as_str().unwrap().to_owned());
        assert_eq!(injected(pod.clone()).0, pod, "again, it is the same");
        (set, warnings.len())
    };
    let by = |text: &str| json!({"openbox.ai/drain-within": text});
    #[rustfmt::skip]
    let taken = [
        // grace       annotations  what the sidecar is told       warnings
        (Value::Null,  json!({}),   None,                          0),
        (json!(12),    json!({}),   None,                          0),
        (json!(11),    json!({}),   Some("9s"),                    0),
        (json!(3),     json!({}),   Some("1s"),                    0),
        (json!(0),     json!({}),   Some("1s"),                    1),
        (Value::Null,  by("28s"),   Some("28s"),                   0),
        (json!(120),   by("100"),   Some("100"),                   0),
    ];
    for (grace, annotations, set, warnings) in taken {
        let found = drains(said(grace.clone(), annotations.clone()));
        let expected = (set.map(str::to_owned), warnings);
        assert_eq!(found, expected, "{grace} {annotations}");
    }
    for (grace, text) in [(Value::Null, "29s"), (json!(60), "1m"), (json!(5), "4s")] {
        let told = refused(said(grace, by(text)));
        assert!(
            told.contains("annotation openbox.ai/drain-within is ")
                && told.contains("terminationGracePeriodSeconds"),
            "{told}"
        );
    }
}

#[test]
fn a_container_that_comes_into_a_running_pod_is_refused_where_it_could_be_the_sidecar() {
    let asked = |spec: &Value, container: Value| {
        let mut later = spec.clone();
        later["spec"]["ephemeralContainers"] = json!([container]);
        let mut review = review_of(&later);
        review["request"]["subResource"] = json!("ephemeralcontainers");
        let answer = review::answer(&review, &Injection::default()).unwrap();
        let response = answer["response"].clone();
        assert!(response.get("patch").is_none(), "{response}");
        let told = response.pointer("/status/message").and_then(Value::as_str);
        assert_eq!(response["allowed"], told.is_none(), "{response}");
        told.unwrap_or_default().to_owned()
    };
    let (plain, _) = injected(pod(app(), json!({})));
    let (led, _) = injected(pod(confined(), json!({"openbox.ai/mode": "redirect"})));
    let confined = json!({"runAsUser": 7, "allowPrivilegeEscalation": false});
    #[rustfmt::skip]
    let table = [
        // pod    container                                                                                told
        (&plain,  json!({"name": "debug"}),                                                                ""),
        (&plain,  json!({"name": "debug", "targetContainerName": "app"}),                                  ""),
        (&plain,  json!({"name": "debug", "targetContainerName": "openbox-sidecar"}),                      "targetContainerName is openbox-sidecar"),
        (&plain,  json!({"name": "openbox-init-net"}),                                                     "a name of the sidecar's"),
        (&plain,  json!({"name": "debug", "securityContext": {"runAsUser": 1580}}),                        "container debug: securityContext.runAsUser is 1580"),
        (&plain,  json!({"name": "debug", "volumeMounts": [{"name": "openbox-keys", "mountPath": "/k"}]}), "container debug mounts volume openbox-keys"),
        (&led,    json!({"name": "debug"}),                                                                "container debug: it may become root"),
        (&led,    json!({"name": "debug", "securityContext": confined}),                                   ""),
    ];
    for (pod, container, expected) in table {
        let told = asked(pod, container.clone());
        assert!(told.contains(expected), "{container}: {told}");
        assert_eq!(told.is_empty(), expected.is_empty(), "{container}: {told}");
    }
}

#[test]
fn a_process_namespace_that_is_shared_is_told() {
    let mut spec = app();
    spec["shareProcessNamespace"] = json!(true);
    let (_, warnings) = injected(pod(spec, json!({})));
    assert!(
        warnings[0].contains("spec.shareProcessNamespace"),
        "{warnings:?}"
    );
}

#[test]
fn who_does_not_ask_gets_none() {
    for (labels, asked, got) in [
        (json!({}), Asked::ByLabel, false),
        (
            json!({"openbox.ai/inject": "disabled"}),
            Asked::ByLabel,
            false,
        ),
        (
            json!({"openbox.ai/inject": "disabled"}),
            Asked::ByHand,
            false,
        ),
        (
            json!({"openbox.ai/inject": "enabled"}),
            Asked::ByLabel,
            true,
        ),
        (json!({}), Asked::ByHand, true),
    ] {
        let before = json!({"metadata": {"labels": labels}, "spec": app()});
        let mut pod = before.clone();
        let done = inject(&mut pod, &Injection::default(), asked);
        assert_eq!(
            matches!(done, Ok(Done::Injected(_))),
            got,
            "{labels} {asked:?}"
        );
        assert_eq!(pod != before, got, "{labels} {asked:?}");
    }
}

fn review_of(object: &Value) -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u-1", "object": object}})
}

#[test]
fn a_review_is_answered_with_the_patch_that_injects() {
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "agent"},
        "spec": {"template": pod(app(), json!({"openbox.ai/pg": "postgres://db"}))},
    });
    for object in [
        pod(app(), json!({"openbox.ai/pg": "postgres://db"})),
        deployment,
    ] {
        let answer = review::answer(&review_of(&object), &Injection::default()).unwrap();
        let response = &answer["response"];
        assert_eq!(
            (&response["uid"], &response["allowed"]),
            (&json!("u-1"), &json!(true))
        );
        assert_eq!(response["patchType"], "JSONPatch");
        let patch = BASE64_STANDARD
            .decode(response["patch"].as_str().unwrap())
            .unwrap();
        let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
        let mut patched = object.clone();
        json_patch::patch(&mut patched, &patch).unwrap();
        let template = patched.pointer("/spec/template").unwrap_or(&patched);
        let (expected, _) = injected(pod(app(), json!({"openbox.ai/pg": "postgres://db"})));
        assert_eq!(*template, expected);
        // Asked again about the result, there is nothing to do.
        let again = review::answer(&review_of(&patched), &Injection::default()).unwrap();
        assert_eq!(again["response"], json!({"uid": "u-1", "allowed": true}));
    }
}

#[test]
fn a_review_that_cannot_be_heeded_is_denied_with_the_reason() {
    let object = pod(app(), json!({"openbox.ai/pg": "mongodb://db"}));
    let answer = review::answer(&review_of(&object), &Injection::default()).unwrap();
    assert_eq!(answer["response"]["allowed"], false);
    let message = answer["response"]["status"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("openbox-sidecar: annotation openbox.ai/pg: "),
        "{message}"
    );
    let deleted = review::answer(&review_of(&Value::Null), &Injection::default()).unwrap();
    assert_eq!(deleted["response"]["allowed"], true);
    for wrong in [
        json!(1),
        json!({"kind": "Pod"}),
        json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}),
    ] {
        assert!(
            review::answer(&wrong, &Injection::default()).is_err(),
            "{wrong}"
        );
    }
}

#[test]
fn refusals_are_told_together() {
    assert_eq!(Refused(vec!["a".into(), "b".into()]).to_string(), "a; b");
}
