//! RabbitMQ ends under load, in good order or not, and is started again on the same data.

use isimud_testing::rabbitmq::Node;

use crate::Setup;
use crate::load::Load;

type Step = fn(&Node) -> Result<(), String>;

/// Harms the node under load, and mends it, in each of these ways.
async fn harm_and_mend(setup: Setup, ways: &[(Step, Step)]) {
    let load = Load::start(&setup).await;
    for (harm, mend) in ways {
        load.goes_on().await;
        step(&setup, *harm).await;
        load.is_refused().await;
        step(&setup, *mend).await;
    }
    load.goes_on().await;
    load.end().await;
}

/// Clients go on meanwhile.
async fn step(setup: &Setup, step: Step) {
    let node = setup.node;
    let done = tokio::task::spawn_blocking(move || step(node)).await;
    done.unwrap().unwrap();
}

fn kill(node: &Node) -> Result<(), String> {
    node.kill();
    Ok(())
}

fn control(node: &Node, word: &str) -> Result<(), String> {
    node.control(&[word]).map(drop)
}

pub(crate) async fn nothing_acknowledged_is_lost_when_a_node_dies_under_load(setup: Setup) {
    let way = (kill as Step, Node::start_again as Step);
    harm_and_mend(setup, &[way, way]).await;
}

pub(crate) async fn nothing_acknowledged_is_lost_when_a_node_is_stopped_under_load(setup: Setup) {
    let ways: [(Step, Step); 2] = [
        (Node::terminate, Node::start_again),
        (Node::stop, Node::start_again),
    ];
    harm_and_mend(setup, &ways).await;
}

/// The node stays; what runs in it stops, and starts again.
pub(crate) async fn nothing_acknowledged_is_lost_when_the_application_stops_under_load(
    setup: Setup,
) {
    let way: (Step, Step) = (
        |node| control(node, "stop_app"),
        |node| control(node, "start_app"),
    );
    harm_and_mend(setup, &[way, way]).await;
}

/// What an operator does to be rid of all clients. They come again at once.
pub(crate) async fn nothing_acknowledged_is_lost_when_connections_are_closed_under_load(
    setup: Setup,
) {
    let load = Load::start(&setup).await;
    for _ in 0..3 {
        load.goes_on().await;
        let close = |node: &Node| node.control(&["close_all_connections", "away"]).map(drop);
        step(&setup, close).await;
    }
    load.goes_on().await;
    load.end().await;
}
