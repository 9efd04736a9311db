use super::*;
use crate::fleet::{Condition, Health, MountKind, Role, Value as EnvValue};

fn read(text: &str) -> Result<Vec<Workload>, Error> {
    let documents = yaml::documents(text, "m.yaml")?;
    let documents: Vec<Document> =
        documents.into_iter().map(|value| ("m.yaml".to_owned(), value)).collect();
    workloads(&documents)
}

const SHOP: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: conf, namespace: shop}
data: {MODE: prod, WORKERS: "4"}
---
apiVersion: v1
kind: Secret
metadata: {name: keys, namespace: shop}
data: {TOKEN: c2VjcmV0}
---
apiVersion: v1
kind: List
items:
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: web, namespace: shop}
  spec:
    replicas: 3
    template:
      metadata: {labels: {app: web}}
      spec:
        terminationGracePeriodSeconds: 10
        securityContext: {runAsUser: 1000, runAsGroup: 2000}
        initContainers:
        - {name: migrate, image: app:1, args: [migrate]}
        - {name: proxy, image: proxy:2, restartPolicy: Always}
        containers:
        - name: app
          image: app:1
          command: ["/bin/app"]
          args: ["--workers", "$(WORKERS)", "$$(KEPT)", "$(UNKNOWN)"]
          envFrom:
          - configMapRef: {name: conf}
          - secretRef: {name: keys}
          env:
          - {name: URL, value: "http://$(MODE)"}
          - name: PASSWORD
            valueFrom: {secretKeyRef: {name: db, key: pw}}
          - name: NODE
            valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
          - name: NS
            valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
          ports: [{containerPort: 8080, name: http}, {containerPort: 9090}]
          resources: {limits: {cpu: 500m, memory: 256Mi}}
          readinessProbe: {httpGet: {path: /ready, port: http}}
          volumeMounts:
          - {name: tmp, mountPath: /tmp}
          - {name: conf, mountPath: /etc/app}
        volumes:
        - {name: tmp, emptyDir: {}}
        - {name: conf, configMap: {name: conf}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  template:
    spec:
      containers:
      - name: db
        image: postgres:16
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates: [{metadata: {name: data}}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: tidy}
spec:
  schedule: "0 3 * * *"
  jobTemplate:
    spec:
      template:
        spec: {restartPolicy: Never, containers: [{name: t, image: tidy}]}
"#;

#[test]
fn deployments_with_all_that_surrounds_them() {
    let all = read(SHOP).unwrap();
    let names: Vec<_> = all.iter().map(|workload| workload.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "shop/deployment/web/migrate",
            "shop/deployment/web/proxy",
            "shop/deployment/web/app",
            "default/statefulset/db/db",
            "default/cronjob/tidy/t"
        ]
    );
    assert_eq!((all[0].role, all[1].role), (Role::Init, Role::Sidecar));
    let app = &all[2];
    assert_eq!((app.role, app.replicas, app.stop_grace), (Role::Main, 3, Some(10)));
    assert_eq!(app.user.as_deref(), Some("1000:2000"));
    let value = |name: &str| &app.env.iter().find(|v| v.name == name).unwrap().value;
    assert_eq!(*value("MODE"), EnvValue::Text("prod".into()));
    assert_eq!(*value("URL"), EnvValue::Text("http://prod".into()));
    assert_eq!(*value("NS"), EnvValue::Text("shop".into()));
    assert_eq!(*value("NODE"), EnvValue::Runtime("spec.nodeName".into()));
    let secret = |name: &str, key: &str| EnvValue::Secret { name: name.into(), key: key.into() };
    assert_eq!(*value("TOKEN"), secret("keys", "TOKEN"));
    assert_eq!(*value("PASSWORD"), secret("db", "pw"));
    assert!(!format!("{app:?}").contains("c2VjcmV0"), "a secret's value has been read");
    let overrides = app.overrides();
    assert_eq!(overrides.entrypoint.as_deref(), Some("/bin/app"));
    assert_eq!(overrides.command, ["--workers", "4", "$(KEPT)", "$(UNKNOWN)"]);
    assert_eq!(
        app.ports.iter().map(|p| (p.guest, p.published)).collect::<Vec<_>>(),
        [(8080, true), (9090, false)]
    );
    assert_eq!((app.resources.milli_cpus, app.resources.memory), (Some(500), Some(256 << 20)));
    assert!(matches!(&app.health, Some(Health::Http { path, .. }) if path == "/ready"));
    let kinds: Vec<_> = app.mounts.iter().map(|mount| mount.kind).collect();
    assert_eq!(kinds, [MountKind::Scratch, MountKind::Config]);
    let needs: Vec<_> = app.depends_on.iter().map(|d| d.condition).collect();
    assert_eq!(needs, [Condition::Completed, Condition::Started]);
    assert_eq!(all[3].mounts[0].kind, MountKind::Volume);
    assert_eq!(all[4].replicas, 0);
}

#[test]
fn what_belongs_to_the_node_is_said() {
    let pod = |spec: &str| {
        let text =
            format!("{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{{spec}}}}}");
        read(&text).unwrap().remove(0)
    };
    for spec in [
        "containers: [{name: c, image: i, volumeMounts: [{name: v, mountPath: /v}]}], \
         volumes: [{name: v, hostPath: {path: /var/log}}]",
        "hostPID: true, containers: [{name: c, image: i}]",
        "containers: [{name: c, image: i, resources: {limits: {nvidia.com/gpu: 1}}}]",
        "nodeSelector: {kubernetes.io/arch: arm64}, containers: [{name: c, image: i}]",
    ] {
        let notes = pod(spec).notes;
        assert!(notes.iter().any(|note| note.severity == Severity::Blocker), "{spec}: {notes:?}");
    }
    let notes = pod("hostNetwork: true, containers: [{name: c, image: i}]").notes;
    assert_eq!(notes.len(), 1);
    assert_eq!(notes[0].severity, Severity::Warning);
}

#[test]
fn errors_name_the_object() {
    for (text, expected) in [
        ("{apiVersion: v1, kind: Pod, metadata: {name: p}}", "Pod default/p: the pod has no"),
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: []}}",
            "no `containers`",
        ),
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: a}]}}",
            "Pod default/p.spec.containers.0: the container `a` has no `image`",
        ),
        ("{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {}}", "spec.template"),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    assert!(read("{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}").unwrap().is_empty());
    assert!(read("some: values\n").unwrap().is_empty());
}
