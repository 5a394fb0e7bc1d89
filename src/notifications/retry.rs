//! Retry policies: when a notification that failed is tried again (spec: subscriptions.md 7.2).

use std::time::Duration;

use serde_json::Value;

/// The step of the sequences, in seconds.
const STEP_SECS: i64 = 5;
/// Retries of one phase, at the most: beyond it a policy would only hammer.
const MAX_RETRIES: i64 = 100;
/// Retries without delay, at the most.
const MAX_IMMEDIATE_RETRIES: usize = 5;
/// The least pause after a failure, in seconds, once those without delay are made.
const MIN_DELAY_SECS: i64 = 1;
/// Elements of a back-off sequence, at the most.
const MAX_BACKOFF_STEPS: i64 = 1000;
/// The longest wait, in seconds: a day.
const MAX_DELAY_SECS: i64 = 86_400;

/// When to try again, in four phases: at once, after the minimum delay, by a sequence, after the maximum delay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RetryPolicy {
    no_delay: usize,
    minimum_retries: usize,
    minimum: Duration,
    sequence: Vec<Duration>,
    maximum_retries: usize,
    maximum: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::read(&Value::Null)
    }
}

impl RetryPolicy {
    /// The policy that holds for a subscription of a queue. One replaces the other wholly; keys are not merged.
    pub(crate) fn choose(subscription: Option<&Value>, queue: Option<&Value>) -> Self {
        let overrides = |policy: Option<&Value>| {
            policy.and_then(|policy| policy.get("ignore_subscription_override"))
                == Some(&Value::Bool(true))
        };
        let is_given = |policy: &&Value| policy.as_object().is_some_and(|keys| !keys.is_empty());
        let own = subscription
            .filter(is_given)
            .filter(|_| !overrides(subscription) && !overrides(queue));
        own.or(queue).map_or_else(Self::default, Self::read)
    }

    /// Reads a validated policy; what it leaves out, or states wrongly, takes the default.
    fn read(policy: &Value) -> Self {
        let integer =
            |key: &str, default: i64| policy.get(key).and_then(Value::as_i64).unwrap_or(default);
        let retries =
            |key: &str| usize::try_from(integer(key, 3).clamp(0, MAX_RETRIES)).unwrap_or(0);
        let minimum = integer("minimum_delay", 5).clamp(0, MAX_DELAY_SECS);
        let maximum = integer("maximum_delay", 30).clamp(minimum, MAX_DELAY_SECS);
        let function = policy.get("retry_backoff_function").and_then(Value::as_str);
        Self {
            no_delay: retries("retries_with_no_delay").min(MAX_IMMEDIATE_RETRIES),
            minimum_retries: retries("minimum_delay_retries"),
            minimum: secs(minimum),
            sequence: sequence(function.unwrap_or("linear"), minimum, maximum)
                .into_iter()
                .map(secs)
                .collect(),
            maximum_retries: retries("maximum_delay_retries"),
            maximum: secs(maximum),
        }
    }

    /// How long to wait before the next attempt when so many have failed; `None` to give up.
    pub(crate) fn wait(&self, failed: usize) -> Option<Duration> {
        let mut retry = failed.checked_sub(1)?;
        if retry < self.no_delay {
            return Some(Duration::ZERO);
        }
        retry -= self.no_delay;
        if retry < self.minimum_retries {
            return Some(self.minimum);
        }
        retry -= self.minimum_retries;
        if let Some(wait) = self.sequence.get(retry) {
            return Some(*wait);
        }
        retry -= self.sequence.len();
        (retry < self.maximum_retries).then_some(self.maximum)
    }
}

/// A pause: no receiver is asked more often, whatever a policy says.
fn secs(secs: i64) -> Duration {
    Duration::from_secs(secs.max(MIN_DELAY_SECS).unsigned_abs())
}

/// The waits of the third phase, in seconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "delays are below a day, and the specification truncates"
)]
fn sequence(function: &str, minimum: i64, maximum: i64) -> Vec<i64> {
    let length = ((maximum - minimum) / STEP_SECS).min(MAX_BACKOFF_STEPS);
    let (low, high) = (minimum as f64, maximum as f64);
    // With a minimum of 0 there is no ratio; the reference crashes there.
    let start = low.max(1.0);
    // By decimal logarithms, as the reference: only so the last elements are cut where it cuts them.
    let ratio = 10_f64.powf((high / start).log10() / (length - 1).max(1) as f64);
    let element = |i: i64| match function {
        "arithmetic" => {
            let step = 2.0 * (high - low) / (length * (length - 1)).max(1) as f64;
            (low + ((i - 1) * i) as f64 * step / 2.0) as i64
        }
        "geometric" => (start * ratio.powi((i - 1) as i32)) as i64,
        "exponential" => (start / ratio * ratio.powi(i as i32)) as i64,
        _ => minimum + STEP_SECS * (i - 1),
    };
    (1..=length).map(|i| element(i).clamp(0, maximum)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_sequences_are_those_of_the_specification() {
        let exponential = &[10, 12, 14, 18, 22, 27, 33, 40, 49, 60];
        for (function, bounds, expected) in [
            ("linear", (5, 30), &[5, 10, 15, 20, 25][..]),
            ("linear", (1, 11), &[1, 6]),
            (
                "linear",
                (10, 60),
                &[10, 15, 20, 25, 30, 35, 40, 45, 50, 55],
            ),
            ("arithmetic", (5, 30), &[5, 7, 12, 20, 30]),
            ("arithmetic", (1, 11), &[1, 11]),
            (
                "arithmetic",
                (10, 60),
                &[10, 11, 13, 16, 21, 26, 33, 41, 50, 60],
            ),
            ("geometric", (5, 30), &[5, 7, 12, 19, 30]),
            ("geometric", (1, 11), &[1, 10]),
            ("geometric", (10, 60), exponential),
            ("exponential", (5, 30), &[5, 7, 12, 19, 30]),
            ("exponential", (1, 11), &[1, 10]),
            ("exponential", (10, 60), exponential),
        ] {
            assert_eq!(
                sequence(function, bounds.0, bounds.1),
                expected,
                "{function} {bounds:?}"
            );
        }
    }

    /// The waits of a policy, in seconds, until it gives up.
    fn waits(policy: &Value) -> Vec<u64> {
        let policy = RetryPolicy::choose(Some(policy), None);
        (1..)
            .map_while(|failed| policy.wait(failed))
            .map(|wait| wait.as_secs())
            .collect()
    }

    #[test]
    fn the_default_is_fourteen_retries_in_four_phases() {
        assert_eq!(
            waits(&json!({})),
            [0, 0, 0, 5, 5, 5, 5, 10, 15, 20, 25, 30, 30, 30]
        );
        assert_eq!(waits(&json!({})).iter().sum::<u64>(), 180);
    }

    #[test]
    fn the_captured_timeline_comes_out() {
        let policy = json!({"retries_with_no_delay": 2, "minimum_delay_retries": 1, "minimum_delay": 1,
            "maximum_delay": 11, "maximum_delay_retries": 1});
        assert_eq!(waits(&policy), [0, 0, 1, 1, 6, 11]);
    }

    #[test]
    fn a_policy_without_a_minimum_still_has_a_sequence() {
        for function in ["linear", "arithmetic", "geometric", "exponential"] {
            let policy = json!({"minimum_delay": 0, "maximum_delay": 20, "retry_backoff_function": function});
            let waits = waits(&policy);
            assert_eq!(waits.len(), 3 + 3 + 4 + 3, "{function}");
            assert!(
                waits.iter().all(|wait| *wait <= 20),
                "{function}: {waits:?}"
            );
        }
    }

    #[test]
    fn what_no_receiver_could_bear_is_capped() {
        let policy = json!({"retries_with_no_delay": 1_000_000_000, "minimum_delay": -5, "maximum_delay": i64::MAX,
            "minimum_delay_retries": -1, "maximum_delay_retries": 0});
        let waits = waits(&policy);
        assert_eq!(waits.iter().filter(|wait| **wait == 0).count(), 5);
        assert_eq!(waits.len(), 1005);
        assert!(waits.iter().all(|wait| *wait <= 86_400));
    }

    #[test]
    fn one_policy_is_chosen_and_none_are_merged() {
        let (own, queue) = (
            json!({"retries_with_no_delay": 1}),
            json!({"retries_with_no_delay": 4}),
        );
        let chosen =
            |own: &Value, queue: &Value| RetryPolicy::choose(Some(own), Some(queue)).no_delay;
        assert_eq!(chosen(&own, &queue), 1);
        assert_eq!(chosen(&json!({}), &queue), 4);
        assert_eq!(chosen(&json!([]), &queue), 4);
        assert_eq!(RetryPolicy::choose(None, None), RetryPolicy::default());
        let overriding = json!({"ignore_subscription_override": true});
        assert_eq!(chosen(&own, &overriding), 3);
        let giving_way = json!({"retries_with_no_delay": 1, "ignore_subscription_override": true});
        assert_eq!(chosen(&giving_way, &queue), 4);
    }
}
