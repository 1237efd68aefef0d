{{/* What sends a container of the app through the sidecar. Made by tests/charts/charts.py. */}}
{{- define "openbox-sidecar.env" -}}
- {"name": "HTTP_PROXY", "value": "http://127.0.0.1:15801"}
- {"name": "http_proxy", "value": "http://127.0.0.1:15801"}
- {"name": "HTTPS_PROXY", "value": "http://127.0.0.1:15801"}
- {"name": "https_proxy", "value": "http://127.0.0.1:15801"}
- {"name": "ALL_PROXY", "value": "http://127.0.0.1:15801"}
- {"name": "all_proxy", "value": "http://127.0.0.1:15801"}
- {"name": "WS_PROXY", "value": "http://127.0.0.1:15801"}
- {"name": "ws_proxy", "value": "http://127.0.0.1:15801"}
- {"name": "WSS_PROXY", "value": "http://127.0.0.1:15801"}
- {"name": "wss_proxy", "value": "http://127.0.0.1:15801"}
- {"name": "GRPC_PROXY", "value": "http://127.0.0.1:15801"}
- {"name": "grpc_proxy", "value": "http://127.0.0.1:15801"}
- {"name": "GLOBAL_AGENT_HTTP_PROXY", "value": "http://127.0.0.1:15801"}
- {"name": "GLOBAL_AGENT_HTTPS_PROXY", "value": "http://127.0.0.1:15801"}
- {"name": "npm_config_proxy", "value": "http://127.0.0.1:15801"}
- {"name": "npm_config_https_proxy", "value": "http://127.0.0.1:15801"}
- {"name": "CGI_HTTP_PROXY", "value": "http://127.0.0.1:15801"}
- {"name": "DOCKER_HTTP_PROXY", "value": "http://127.0.0.1:15801"}
- {"name": "DOCKER_HTTPS_PROXY", "value": "http://127.0.0.1:15801"}
- {"name": "CLOUDSDK_PROXY_TYPE", "value": "http"}
- {"name": "CLOUDSDK_PROXY_ADDRESS", "value": "127.0.0.1"}
- {"name": "CLOUDSDK_PROXY_PORT", "value": "15801"}
- {"name": "NO_PROXY", "value": "localhost,127.0.0.1,::1,0.0.0.0"}
- {"name": "no_proxy", "value": "localhost,127.0.0.1,::1,0.0.0.0"}
- {"name": "GLOBAL_AGENT_NO_PROXY", "value": "localhost,127.0.0.1,::1,0.0.0.0"}
- {"name": "npm_config_noproxy", "value": "localhost,127.0.0.1,::1,0.0.0.0"}
- {"name": "no_grpc_proxy", "value": "localhost,127.0.0.1,::1,0.0.0.0"}
- {"name": "NODE_USE_ENV_PROXY", "value": "1"}
- {"name": "SSL_CERT_FILE", "value": "/openbox/bundle.pem"}
- {"name": "REQUESTS_CA_BUNDLE", "value": "/openbox/bundle.pem"}
- {"name": "CURL_CA_BUNDLE", "value": "/openbox/bundle.pem"}
- {"name": "GIT_SSL_CAINFO", "value": "/openbox/bundle.pem"}
- {"name": "AWS_CA_BUNDLE", "value": "/openbox/bundle.pem"}
- {"name": "DENO_CERT", "value": "/openbox/bundle.pem"}
- {"name": "CARGO_HTTP_CAINFO", "value": "/openbox/bundle.pem"}
- {"name": "PERL_LWP_SSL_CA_FILE", "value": "/openbox/bundle.pem"}
- {"name": "PIP_CERT", "value": "/openbox/bundle.pem"}
- {"name": "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "value": "/openbox/bundle.pem"}
- {"name": "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", "value": "/openbox/bundle.pem"}
- {"name": "npm_config_cafile", "value": "/openbox/bundle.pem"}
- {"name": "NODE_EXTRA_CA_CERTS", "value": "/openbox/ca.pem"}
- {"name": "UV_NATIVE_TLS", "value": "1"}
- {"name": "JAVA_TOOL_OPTIONS", "value": "-Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=15801 -Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=15801 -Dhttp.nonProxyHosts=localhost|127.*|[::1]|0.0.0.0 -Djavax.net.ssl.trustStore=/openbox/bundle.jks -Djavax.net.ssl.trustStoreType=JKS -Djavax.net.ssl.trustStorePassword="}
- {"name": "OPENBOX_URL", "value": "http://127.0.0.1:15800"}
- {"name": "OPENBOX_API_URL", "value": "http://127.0.0.1:15800"}
- {"name": "OPENBOX_SIDECAR_URL", "value": "http://127.0.0.1:15800"}
- {"name": "OPENBOX_SIDECAR_SOCKET", "value": "/openbox/agent.sock"}
- {"name": "OPENBOX_SIDECAR_TOKEN_FILE", "value": "/openbox/agent-token"}
{{- end }}
{{/* The settings that a pod may say, by their variables. Made by tests/charts/charts.py. */}}
{{- define "openbox-sidecar.settings" -}}
["OPENBOX_CORE_URL", "OPENBOX_GOVERNANCE_POLICY", "OPENBOX_PG", "OPENBOX_MYSQL", "OPENBOX_REDIS", "OPENBOX_ALLOW_ADDRESS", "OPENBOX_RESOLVE", "OPENBOX_LOG_FORMAT", "OPENBOX_DRAIN_WITHIN", "OPENBOX_WORKERS"]
{{- end }}
{{/* The same, by their annotations. Made by tests/charts/charts.py. */}}
{{- define "openbox-sidecar.annotations" -}}
{"core-url": "OPENBOX_CORE_URL", "fail-mode": "OPENBOX_GOVERNANCE_POLICY", "pg": "OPENBOX_PG", "mysql": "OPENBOX_MYSQL", "redis": "OPENBOX_REDIS", "allow-address": "OPENBOX_ALLOW_ADDRESS", "resolve": "OPENBOX_RESOLVE", "log-format": "OPENBOX_LOG_FORMAT", "drain-within": "OPENBOX_DRAIN_WITHIN", "workers": "OPENBOX_WORKERS"}
{{- end }}
