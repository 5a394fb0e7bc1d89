//! The three actions of SQS that work on up to ten entries: sending, deleting, and changing for how long messages are
//! hidden.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry as Hide, DeleteMessageBatchRequestEntry as Delete,
    SendMessageBatchRequestEntry as Send,
};
use isimud_contract::{ClientId, Result};
use sha2::{Digest, Sha256};

use crate::config::{Config, Order};
use crate::envelope::{ATTRIBUTE, BatchEntry};
use crate::error::{Fault, strange};
use crate::queue::QueueInfo;
use crate::queues::make;
use crate::round::{Action, Answer};

/// An answer's entries, of whichever action.
macro_rules! answer {
    ($output:expr) => {{
        let output = $output;
        let done = output
            .successful
            .into_iter()
            .map(|entry| entry.id)
            .collect();
        Ok(Answer {
            done,
            failed: output.failed,
        })
    }};
}

fn incomplete<E>(_: E) -> Fault {
    Fault::other(strange("a field of an entry"))
}

/// Sends messages.
#[derive(Debug)]
pub(crate) struct Posting(pub(crate) Arc<QueueInfo>);

#[async_trait]
impl Action for Posting {
    type Item = BatchEntry;
    const IS_DELETE: bool = false;

    fn in_order(&self) -> bool {
        self.0.account.config.order.is_fifo()
    }

    fn weight(&self, batch_entry: &BatchEntry) -> usize {
        batch_entry.weight()
    }

    async fn call(&self, batch_entries: &[(String, &BatchEntry)]) -> Result<Answer, Fault> {
        let account = &self.0.account;
        let entries: Option<Vec<Send>> = batch_entries
            .iter()
            .map(|(number, batch_entry)| entry(number, batch_entry, &account.config))
            .collect();
        let entries = entries.ok_or(()).map_err(incomplete)?;
        let client = account.client().await.map_err(Fault::other)?;
        let call = client.send_message_batch().queue_url(&self.0.url);
        let output = call.set_entries(Some(entries)).send().await;
        answer!(output.map_err(|error| account.told(error))?)
    }

    async fn ensure_queue(&self) -> Result<bool> {
        let queue_info = &self.0;
        if queue_info.is_made_here {
            make(&queue_info.account, &queue_info.name, &queue_info.tags).await?;
        }
        Ok(queue_info.is_made_here)
    }
}

fn entry(number: &str, batch_entry: &BatchEntry, config: &Config) -> Option<Send> {
    let delay = if config.native_delays {
        batch_entry.delay
    } else {
        0
    };
    let entry = Send::builder()
        .id(number)
        .message_body(&batch_entry.body)
        .message_attributes(ATTRIBUTE, batch_entry.attribute_value()?);
    let beside = batch_entry.beside.iter();
    let entry = beside.fold(entry, |entry, attribute| match attribute.value() {
        Some(value) => entry.message_attributes(&attribute.name, value),
        None => entry,
    });
    let entry = match config.order {
        // Said although it is none, because an adopted queue may have a delay of its own.
        Order::Loose => entry.delay_seconds(i32::try_from(delay).unwrap_or(900)),
        Order::Queue => entry.message_group_id("isimud"),
        Order::Client => entry.message_group_id(group(&batch_entry.client)),
    };
    let entry = if config.order.is_fifo() {
        entry.message_deduplication_id(batch_entry.deduplication_id())
    } else {
        entry
    };
    entry.build().ok()
}

/// The group of a client's messages: up to 128 letters, digits and punctuation (action `SendMessage`).
fn group(client: &ClientId) -> String {
    match client {
        ClientId::Uuid(id) => id.to_string(),
        ClientId::Text(text) => {
            let digest = Sha256::digest(text.as_bytes());
            digest[..16]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect()
        }
    }
}

/// Deletes messages, by their handles.
#[derive(Debug)]
pub(crate) struct Settling(pub(crate) Arc<QueueInfo>);

#[async_trait]
impl Action for Settling {
    type Item = String;
    const IS_DELETE: bool = true;

    fn in_order(&self) -> bool {
        false
    }

    fn weight(&self, _: &String) -> usize {
        0
    }

    async fn call(&self, handles: &[(String, &String)]) -> Result<Answer, Fault> {
        let account = &self.0.account;
        let entry = |(number, handle): &(String, &String)| {
            let entry = Delete::builder().id(number).receipt_handle(*handle);
            entry.build().map_err(incomplete)
        };
        let entries: Vec<Delete> = handles.iter().map(entry).collect::<Result<_, _>>()?;
        let client = account.client().await.map_err(Fault::other)?;
        let call = client.delete_message_batch().queue_url(&self.0.url);
        let output = call.set_entries(Some(entries)).send().await;
        answer!(output.map_err(|error| account.told(error))?)
    }

    async fn ensure_queue(&self) -> Result<bool> {
        Ok(false)
    }
}

/// Hides messages for so many seconds from now on, by their handles. For none they are free.
#[derive(Debug)]
pub(crate) struct Hiding(pub(crate) Arc<QueueInfo>);

#[async_trait]
impl Action for Hiding {
    type Item = (String, i32);
    const IS_DELETE: bool = true;

    fn in_order(&self) -> bool {
        false
    }

    fn weight(&self, _: &(String, i32)) -> usize {
        0
    }

    async fn call(&self, handles: &[(String, &(String, i32))]) -> Result<Answer, Fault> {
        let account = &self.0.account;
        let entry = |(number, (handle, seconds)): &(String, &(String, i32))| {
            let entry = Hide::builder().id(number).receipt_handle(handle);
            entry
                .visibility_timeout(*seconds)
                .build()
                .map_err(incomplete)
        };
        let entries: Vec<Hide> = handles.iter().map(entry).collect::<Result<_, _>>()?;
        let client = account.client().await.map_err(Fault::other)?;
        let call = client
            .change_message_visibility_batch()
            .queue_url(&self.0.url);
        let output = call.set_entries(Some(entries)).send().await;
        answer!(output.map_err(|error| account.told(error))?)
    }

    async fn ensure_queue(&self) -> Result<bool> {
        Ok(false)
    }
}
