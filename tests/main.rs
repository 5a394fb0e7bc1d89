//! Tests of the whole program, a module for each subject. They are one program, so that the service is linked once for all
//! of them; `scripts/test-programs` runs each subject as a process of its own.

mod api;
mod bridges;
mod command;
mod direction;
mod hostile;
mod import;
mod import_zaqar_conf;
mod journeys;
mod keystone;
mod ledgers;
mod migration_in_use;
mod migration_matrix;
mod mixed;
mod notifications;
mod openstack_clients;
mod rabbitmq_existing_queues;
mod restart;
mod servers;
mod sqs;
mod sqs_existing_queues;
mod support;
mod tls;
mod websocket;
