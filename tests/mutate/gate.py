#!/usr/bin/env python3
"""Breaks the gate on purpose, one way at a time, and says which test noticed.

Not run by `make test`. Works on a copy, with a target folder of its own: cargo
tells a copy from the original by nothing but the age of files.
    python3 tests/mutate/gate.py [words of the mutants to run]
Exit code 1 if a mutant survives, does not compile, or no longer applies.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = str(ROOT / "target" / "mutate")
GATE = "src/gate/"

# what is broken, file, text that is there once, text that takes its place
MUTANTS = [
    ("grant does not look at the latch again", GATE + "admit.rs",
     "        if let Some(refusal) = refused_already(&session) {\n            return self.refuse(&operation, refusal, trail);\n        }\n        let (decided, word)",
     "        let (decided, word)"),
    ("admit does not look at the latch", GATE + "admit.rs",
     "        if let Some(refusal) = refused_already(&session) {\n            return inner.refuse(",
     "        if let Some(refusal) = refused_already(&session).filter(|_| false) {\n            return inner.refuse("),
    ("a permit is granted without its record", GATE + "admit.rs",
     "            return self.refuse(&operation, Refusal::NotRecorded, trail);\n        }\n        self.count(operation", "        }\n        self.count(operation"),
    ("the fail mode passes what cannot be judged", GATE + "admit.rs",
     "                (None, PolicyError::Unjudgeable(reason)) => {\n                    Next::Refuse(Refusal::Unjudgeable(reason))\n                }",
     "                (None, PolicyError::Unjudgeable(_)) => Next::Grant,"),
    ("fail mode closed passes", GATE + "admit.rs",
     "FailMode::Closed => Next::Refuse(Refusal::PolicyUnavailable(reason)),",
     "FailMode::Closed => { drop(reason); Next::Grant }"),
    ("the fail mode is not marked", GATE + "admit.rs", "        trail.by_fail_mode = true;\n", ""),
    ("BLOCK does not abort the activity", GATE + "admit.rs",
     "                    activity.abort(&reason);\n                }\n                Next::Refuse(Refusal::Blocked", "                    let _ = activity;\n                }\n                Next::Refuse(Refusal::Blocked"),
    ("HALT does not latch", GATE + "admit.rs", 'self.halt(&session.run, &reason, "policy");', ""),
    ("redaction is ignored", GATE + "judge.rs", "if ruling.redacted.is_some() {", "if false {"),
    ("constraints are never enforced", GATE + "judge.rs", "Some(name) if enforced =>", "Some(name) if enforced && false =>"),
    ("a question outlives a halt", GATE + "judge.rs", "session.until_halted(), if !happened =>", "session.until_halted(), if happened =>"),
    ("policy has no deadline", GATE + "judge.rs", "let within = self.parts.settings.judge_within;", "let within = self.parts.settings.judge_within * 99;"),
    ("a reload before the grant is overlooked", GATE + "admit.rs",
     "self.parts.backend.generation() == hold.ruling.generation {", "self.parts.backend.generation() == hold.ruling.generation || true {"),
    ("a reload before an answer's grant is overlooked", GATE + "outcome.rs",
     "self.gate.parts.backend.generation() != hold.ruling.generation {", "self.gate.parts.backend.generation() != hold.ruling.generation && false {"),
    ("a reload before an event's grant is overlooked", GATE + "note.rs",
     "self.parts.backend.generation() != hold.ruling.generation {", "self.parts.backend.generation() != hold.ruling.generation && false {"),
    ("a retry loses its ruling", GATE + "admit.rs", "            trail.ruling = Some(hold.ruling.clone());\n", ""),
    ("each wait has its own deadline", GATE + "admit.rs",
     "let waited = self.wait(&hold, waiter, &session, until).await;", "let until = until.max(Instant::now().checked_add(terms.hold_within).unwrap_or(until)); let waited = self.wait(&hold, waiter, &session, until).await;"),
    ("a forgotten approval lets the activity go on", GATE + "admit.rs",
     "return Some(Refusal::ApprovalExpired(id));", "return None;"),
    ("retries do not join", GATE + "admit.rs", ".and_then(|print| self.holds.by_fingerprint(print));", ".and_then(|print| self.holds.by_fingerprint(print)).filter(|_| false);"),
    ("a grant is used as often as one likes", GATE + "hold.rs", "                *state = State::Consumed;\n", ""),
    ("a used grant can be joined", GATE + "hold.rs", "        if had && hold.covers == Covers::Once {\n            table.forget", "        if had && hold.covers == Covers::All {\n            table.forget"),
    ("an answer joins a request", GATE + "hold.rs", "(Stage::Started, Some(twin)) => return", "(_, Some(twin)) => return"),
    ("an answer takes the name of a request", GATE + "hold.rs", "(Stage::Completed, Some(_)) => None,", "(Stage::Completed, Some(_)) => hold.fingerprint,"),
    ("a twin found while opening counts as the owner", GATE + "wait.rs", "return Ok((hold, Waiter::Joiner));", "return Ok((hold, Waiter::Owner));"),
    ("open holds are unbounded", GATE + "hold.rs", "if table.pending >= at_most {", "if table.pending >= at_most && false {"),
    ("decided holds are unbounded", GATE + "hold.rs", "if decided > DECIDED_KEPT_MAX {", "if decided > DECIDED_KEPT_MAX && false {"),
    ("forgotten holds leave their name", GATE + "hold.rs", "by_fingerprint.retain(|_, hold| by_id.contains_key(&hold.id));", "let _ = (by_id, by_fingerprint);"),
    ("ids given twice hide a hold", GATE + "hold.rs", "while table.by_id.contains_key(&hold.id) {", "while table.by_id.contains_key(&hold.id) && false {"),
    ("a rejected answer is kept", GATE + "hold.rs", "            drop(hold.unpark());\n", ""),
    ("an answer is parked on a hold that is over", GATE + "hold.rs", "if matches!(*self.state.borrow(), State::Pending | State::Granted) {", "if true {"),
    ("a grant is visible before it is written", GATE + "hold.rs",
     "        record(&to);\n        let granted = to == State::Granted;\n        hold.state.send_replace(to);\n",
     "        let granted = to == State::Granted;\n        hold.state.send_replace(to.clone());\n        record(&to);\n"),
    ("a halt uses up the grant", GATE + "wait.rs", "if let Some(reason) = session.halted() {\n                return Waited::Ended(Refusal::Halted(reason));\n            }\n            if let Some(waited)", "if let Some(waited)"),
    ("close does not release", GATE + "wait.rs", "                _ = closing.wait_for(|closing| *closing) => return Waited::Ended(Refusal::ShuttingDown),\n", "                _ = closing.wait_for(|_| false) => return Waited::Ended(Refusal::ShuttingDown),\n"),
    ("a halt leaves a hold opened meanwhile", GATE + "wait.rs", "        if let Some(reason) = session.halted() {\n            let cancelled", "        if let Some(reason) = session.halted().filter(|_| false) {\n            let cancelled"),
    ("a cancelled hold keeps its name", GATE + "wait.rs", "            if forget {\n", "            if forget && false {\n"),
    ("expiry is told for ever", GATE + "wait.rs", "                self.holds.forget_fingerprint(hold);\n                ended_as(hold, State::Expired)", "                ended_as(hold, State::Expired)"),
    ("an answer lost is a halt to its retries", GATE + "wait.rs", "State::Cancelled(_) if joins_outcome => Some(Waited::Used),", "State::Cancelled(_) if joins_outcome && false => Some(Waited::Used),"),
    ("a retry takes the answer before it is there", GATE + "wait.rs", "State::Granted if joins_outcome && !hold.has_parked() => {", "State::Granted if joins_outcome && false => {"),
    ("the deadline of an approval is not one of its waiters", GATE + "wait.rs", "let until = until.min(hold.deadline);", ""),
    ("no last look", GATE + "wait.rs", "                    hold.nudge.notify_one();\n", ""),
    ("every waiter's last look asks Core", GATE + "wait.rs", "if looked.is_some_and(|at| at.elapsed() < LOOK_FRESH) {", "if false {"),
    ("looks are not spaced out", GATE + "wait.rs", "pause = pause.saturating_mul(2).min(POLL_MAX);", "pause = pause.min(POLL_MAX);"),
    ("looks are spaced out for ever", GATE + "wait.rs", "pause = pause.saturating_mul(2).min(POLL_MAX);", "pause = pause.saturating_mul(2);"),
    ("a last look bends the schedule", GATE + "wait.rs", "        if next <= now {\n", "        {\n"),
    ("a look may hang", GATE + "wait.rs", "time::timeout(self.parts.settings.judge_within, answer)", "time::timeout(Duration::from_secs(99_999), answer)"),
    ("an error of Core rejects", GATE + "wait.rs", 'tracing::debug!(%error, approval_id = %hold.id, "approval not read, still pending");\n                None', "let _ = error; Some(State::Expired)"),
    ("a pending answer of Core is a grant", GATE + "wait.rs", "Ok(Ok(ApprovalState::Pending { .. })) => None,", "Ok(Ok(ApprovalState::Pending { .. })) => Some(State::Granted),"),
    ("a rejection leaves the activity alone", GATE + "wait.rs", "State::Rejected(reason) | State::Cancelled(reason) => activity.abort(&reason),", "State::Rejected(_) | State::Cancelled(_) => {}"),
    ("an expiry leaves the activity alone", GATE + "wait.rs", "            activity.abort(&reason.as_str().into());\n", "            let _ = reason;\n"),
    ("a grant leaves the activity waiting", GATE + "wait.rs", "State::Granted | State::Consumed => activity.waits_no_longer(&hold.id),", "State::Granted | State::Consumed => {}"),
    ("an activity waits for its last answer only", "src/session/activity.rs", "self.lock().waits_for.push(approval);", "self.lock().waits_for = vec![approval];"),
    ("a dropped permit is not recorded", GATE + "permit.rs", "None => admitted.settle_observed(completion),", "None => drop((admitted, completion)),"),
    ("a judged outcome is judged again", GATE + "permit.rs", "Some(trail) => admitted.record_unclaimed(&completion, &trail),", "Some(_) => admitted.settle_observed(completion),"),
    ("a dropped completion is abandoned", GATE + "permit.rs", "self.ended.take().unwrap_or_else(", "self.ended.take().filter(|_| false).unwrap_or_else("),
    ("a permit opens everything", GATE + "permit.rs", "(permit.id() == Some(self.operation)).then_some(", "(permit.id() == Some(self.operation) || true).then_some("),
    ("a completion is recorded twice", GATE + "outcome.rs", "        admitted.record(completion, word, decided, &trail);\n        self.admitted = None;\n", "        admitted.record(completion, word, decided, &trail);\n"),
    ("a lost report is not recorded", GATE + "outcome.rs", 'admitted.record(&self.completion, "unreported", Decided::Refused, &trail);', "drop(trail);"),
    ("a full queue is not counted", GATE + "outcome.rs", "            gate.parts.metrics.limit_hit(LimitHit::Reports);\n", ""),
    ("policy is asked while unwinding", GATE + "outcome.rs", "&& !std::thread::panicking();", "&& (!std::thread::panicking() || true);"),
    ("a dropped parking leaves its approval", GATE + "outcome.rs", "            self.gate.lose_answer(&hold);\n", ""),
    ("an answer nobody can get is pending", GATE + "outcome.rs", "if self.gate.holds.is_joinable(&hold) {", "if self.gate.holds.is_joinable(&hold) || true {"),
    ("an answer of a halted run goes out", GATE + "outcome.rs", "Some(reason) => Ended::Refused(Refusal::Halted(reason)),\n            None => Ended::Released,", "Some(_) | None => Ended::Released,"),
    ("BLOCK at completed does not abort", GATE + "outcome.rs", "                    activity.abort(&reason);\n                }\n                Ended::Refused(Refusal::OutcomeBlocked", "                    let _ = activity;\n                }\n                Ended::Refused(Refusal::OutcomeBlocked"),
    ("REQUIRE_APPROVAL releases the unredacted answer", GATE + "outcome.rs", "            Verdict::RequireApproval => match constrained {\n                Ok(()) => Ended::Held(ruling),\n                Err(refusal) => Ended::Refused(refusal),\n            },", "            Verdict::RequireApproval => Ended::Held(ruling),"),
    ("later operations do not wait", GATE + "outcome.rs", "                activity.wait_for(hold.id.clone());\n", ""),
    ("a fail-closed outcome goes out", GATE + "outcome.rs", "FailMode::Closed => Ended::Refused(Refusal::PolicyUnavailable(reason)),", "FailMode::Closed => { drop(reason); Ended::Released }"),
    ("a refused event opens", GATE + "note.rs", "} else if let Ok(()) = end {\n            end = inner.apply(event);", "} else {\n            drop(inner.apply(event));"),
    ("an end nobody waits for is not heard", GATE + "note.rs", "        drop(self.inner.apply(self.event));\n", ""),
    ("an unrecorded event is allowed", GATE + "note.rs", "            refusal.get_or_insert(Refusal::NotRecorded);\n", "            let _ = &mut refusal;\n"),
    ("a halt of an event does not latch", GATE + "note.rs", 'Ok(run) => self.halt(&run, &reason, "policy"),', "Ok(_) => {}"),
    ("an event's grant overtakes a halt", GATE + "note.rs", "            if let Some(reason) = session.halted() {\n                return Err(Refusal::Halted(reason));\n            }\n            let (hold, waiter)", "            let (hold, waiter)"),
    ("a halt leaves holds open", GATE + "operate.rs", "if everything || of_run {", "if false {"),
    ("a halt of a run ends all holds", GATE + "operate.rs", "if everything || of_run {", "if everything || of_run || true {"),
    ("the agent is not halted", GATE + "operate.rs", "let all_first = everything && registry.halt_everything(reason);", "let all_first = false;"),
    ("a second halt of the agent is not obeyed", GATE + "operate.rs", "if !(run_first || all_first) {", "if !run_first {"),
    ("nothing expires by itself", GATE + "operate.rs", "gate.end_hold(&hold, EndsFrom::Unused, State::Expired, None);", "drop(hold);"),
    ("Core's approvals can be decided here", GATE + "operate.rs", "if inner.parts.backend.approvals_at() == ApprovalsAt::Core {", "if false {"),
    ("the body is not part of the fingerprint", GATE + "fingerprint.rs", "(_, None, Some(text)) => part(hash, text.as_bytes()),", "(_, None, Some(_)) => {}"),
    ("the URL is not part of the fingerprint", GATE + "fingerprint.rs", "    part(hash, call.url.as_bytes());\n", ""),
    ("the method is not part of the fingerprint", GATE + "fingerprint.rs", "    part(hash, call.method.as_bytes());\n", ""),
    ("the run is not part of the fingerprint", GATE + "fingerprint.rs", "    part(&mut hash, context.run_id.as_bytes());\n    let activity", "    let activity"),
    ("half a body has a fingerprint", GATE + "fingerprint.rs", "    if !call.body.state.is_whole() {\n        return None;\n    }\n", ""),
    ("unknown content has a fingerprint", GATE + "fingerprint.rs", "(_, None, None) => return None,", '(_, None, None) => part(hash, b""),'),
    ("a halt misses the run reopened under its name", "src/session/run.rs", "            latch: before.latch.clone(),\n", ""),
    ("a halt of a forgotten run cannot be found", "src/session/registry.rs", "let known = (key != RunKey::of(&self.own.context)).then(|| {", "let known = (key != RunKey::of(&self.own.context) && false).then(|| {"),
    ("the same attempt clears its refusals", "src/session/run.rs", ".is_some_and(|known| known.attempt() == activity.attempt())", ".is_some_and(|known| known.attempt() == activity.attempt() && false)"),
    ("a halt elsewhere passes the unattributed", "src/session/mod.rs", "(unattributed && self.registry.runs() > 0).then(", "(unattributed && false).then("),
]


def run(folder):
    """What the tests say: 'survived', 'does not compile: …' or 'caught by …'."""
    command = ["cargo", "test", "--lib", "--", "gate::", "session::"]
    env = dict(os.environ, CARGO_TARGET_DIR=TARGET, RUST_BACKTRACE="0")
    try:
        done = subprocess.run(command, cwd=folder, env=env, timeout=120,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except subprocess.TimeoutExpired:
        return "caught by never ending"
    if "could not compile" in done.stdout:
        errors = [line for line in done.stdout.splitlines() if line.startswith("error")]
        return "DOES NOT COMPILE: " + " ".join(errors[:1])
    failed = [line.split()[1] for line in done.stdout.splitlines()
              if line.startswith("test ") and line.endswith("FAILED")]
    if failed:
        names = sorted(name.split("::")[-1] for name in failed)
        return f"caught by {len(names)}: {names[0]}"
    return "SURVIVED" if done.returncode == 0 else "caught by a crash"


def main():
    words = sys.argv[1:]
    bad = 0
    with tempfile.TemporaryDirectory(prefix="mutate-gate-") as folder:
        copy = pathlib.Path(folder) / "copy"
        ignored = shutil.ignore_patterns("target", ".git", "__pycache__")
        # Newer than anything compiled before.
        shutil.copytree(ROOT, copy, ignore=ignored, copy_function=shutil.copyfile)
        before = run(copy)
        if before != "SURVIVED":
            sys.exit(f"the tests fail as they are: {before}")
        for name, path, old, new in MUTANTS:
            if words and not any(word in name for word in words):
                continue
            file = copy / path
            text = file.read_text()
            if text.count(old) != 1:
                found = f"NO LONGER APPLIES: found {text.count(old)} times"
            else:
                file.write_text(text.replace(old, new))
                found = run(copy)
                file.write_text(text)
            bad += not found.startswith("caught")
            print(f"{name:55} {found}", flush=True)
    print(f"{bad} to look at" if bad else "all caught")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
