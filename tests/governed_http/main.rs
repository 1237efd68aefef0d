//! The real sidecar between real clients and origins, over HTTP and HTTPS.
//!
//! What a forward proxy must not get wrong, and what keeps it so: a test, of these or of a module's own, or a sentence
//! of the README that says why not. `checklist.rs` sees to it that they are there.
//!
//! |  # | rule                                                              | kept by |
//! | -: | ----------------------------------------------------------------- | ------- |
//! |  1 | It listens on loopback unless that is said                        | `a_listener_that_others_reach_is_warned_about`, "is served as the agent is, without a token" |
//! |  2 | The operator's API is elsewhere, behind a token                   | `neither_token_opens_the_other_api`, "`/metrics` and health have no token" |
//! |  3 | Proxy credentials are the agent's, or 407                         | `wrong_proxy_credentials_are_refused` |
//! |  4 | Tunnels lead to ports of a list                                   | `tunnels_lead_to_named_ports_only_by_connect_and_by_socks` |
//! |  5 | Not to itself, loopback or metadata; what was checked is dialed   | `the_sidecars_own_listeners_are_refused_even_where_loopback_is_allowed`, `addresses_that_no_agent_should_reach_are_refused`, `an_address_is_judged_by_what_it_reaches` |
//! |  6 | What is denied is not looked up                                   | `policy_is_asked_before_a_name_is_resolved` |
//! |  7 | One reading of every request, written anew                        | `an_ambiguous_request_is_refused_and_nothing_is_evaluated_or_sent` |
//! |  8 | Raw only after a 101                                              | `bytes_pass_both_ways_after_the_origins_101`, `an_origin_that_declines_is_an_ordinary_answer` |
//! |  9 | Bytes behind a refused CONNECT are no request                     | `a_tunnel_that_is_refused_says_so_whatever_was_sent_behind_it` |
//! | 10 | The authority of a tunnel is that of all inside                   | `inside_a_tunnel_the_host_is_pinned`, `a_connection_serves_the_authority_of_its_tunnel_and_no_other` |
//! | 11 | The hello names the host of CONNECT                               | `a_hello_for_another_host_is_refused_with_an_alert`, `what_a_tunnel_was_not_judged_as_does_not_pass_through_it`, "A hello without a name, or with an encrypted one" |
//! | 12 | Fields of the hop stay here                                       | `what_belongs_to_the_hop_and_to_us_stays_here` |
//! | 13 | The authority's key is nobody else's                              | `a_key_that_everybody_may_read_is_not_used`, `nothing_of_the_key_is_in_its_debug_form`, `a_process_that_forbids_it_is_not_dumped` |
//! | 14 | Origins prove who they are                                        | `a_certificate_that_does_not_verify_is_a_bad_gateway_and_nothing_is_sent` |
//! | 15 | A connection of one identity is not another's                     | `a_connection_that_is_somebodys_is_used_for_nobody_else`, `a_certificate_that_is_replaced_is_shown_from_then_on_and_over_no_connection_of_before` |
//! | 16 | Secrets are redacted before they are told                         | `secrets_of_a_request_stay_out_of_journal_and_log`, `a_secret_in_a_query_is_not_told_to_core` |
//! | 17 | Codes are stable; what the decider says is told                   | "A refusal tells the agent the decider's words" |
//! | 18 | Everything is bounded                                             | `heads_beyond_the_bounds_are_refused_and_other_streams_go_on`, `a_hello_that_never_ends_is_cut_off_at_its_cap`, `open_holds_are_bounded_and_the_bound_is_counted` |
//! | 19 | Failing open opens none of that                                   | `a_body_that_policy_must_see_whole_and_cannot_is_413_even_when_failing_open`, `a_policy_that_fails_refuses_even_when_failing_open` |
//! | 20 | What passes without an answer is marked                           | `no_answer_is_what_the_fail_mode_says_and_a_bad_answer_is_a_refusal_under_either` |
//! | 21 | A grant is for what was judged, once                              | `identical_retries_share_one_approval_and_one_of_them_uses_it`, `what_the_policy_of_now_forbids_no_old_approval_allows` |
//! | 22 | The journal is a chain                                            | `every_kind_of_tampering_is_named_at_its_record` |
//! | 23 | Variables enforce nothing, and where something does               | "On a laptop the sidecar is a guide rail, not a wall", "every TCP connection that leaves the pod comes to the sidecar" |
//! | 24 | Core is not captured; circles end                                 | `a_connection_of_ours_is_told_from_one_of_a_program_that_we_have_started`, `two_sidecars_that_are_each_others_way_out_say_so_after_one_round`, `a_core_that_is_the_sidecar_itself_is_told`, "Core is reached by HTTPS with the agent's key and identity" |
//! | 25 | It runs with no more than it needs                                | `a_sidecar_of_root_is_warned_of_and_one_of_a_user_is_not`, "Privileges are not dropped after the start" |

#![cfg(test)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "an overflow or a bad index in a test fails the test; the file is no data path"
)]

#[path = "../support/mod.rs"]
mod support;

#[path = "../compat/mod.rs"]
mod compat;

mod approvals;
mod as_direct;
mod bad_input;
mod bodies;
mod chaining;
mod checklist;
mod circles;
mod clients;
mod core_approvals;
mod core_mode;
mod crashes;
mod credentials;
mod disks;
mod egress;
mod encodings;
mod expectations;
mod git;
mod grpc;
mod halts;
mod health;
mod http2;
mod identities;
mod leaks;
mod lifecycle;
mod mcp;
mod origin_tls;
mod origins;
mod own_servers;
mod redaction;
mod rotation;
mod routes;
mod rules;
mod secrets;
mod smuggling;
mod socks;
mod streams;
mod terms;
mod trailers;
mod trust;
mod upgrades;
mod verdicts;
mod violations;
mod websockets;
mod whole_answers;

/// A field of proxy credentials.
fn basic(user: &str, token: &str) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{token}"));
    format!("Basic {text}")
}

/// That `answer` refuses to hand out what a request was answered that was carried out, and
/// that nothing in it makes a client send the request again.
fn assert_carried_out(answer: &support::wire::Message, what: &str) {
    let problem = answer.json();
    let detail = problem["detail"].as_str().unwrap();
    let says = detail.contains("The request was carried out, but its answer is withheld.");
    assert!(says && !detail.contains("Nothing"), "{what}: {detail}");
    assert_eq!(answer.status(), 403, "{what}");
    assert_eq!(problem["retryable"], false, "{what}");
    let when = (problem.get("retry_after"), answer.get("retry-after"));
    assert_eq!(when, (None, None), "{what}");
}
