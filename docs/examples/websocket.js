// A client of one queue for pages, used by websocket.html: it subscribes, posts, and comes back when its socket is closed.

"use strict";

/** How long to wait before a socket is opened again, in milliseconds: as the server says, or longer each time. */
function delayAfter(close, attempts) {
  const told = /Reconnect in (\d+) ms/.exec(close.reason || "");
  return told ? Number(told[1]) : Math.min(30000, 500 * 2 ** attempts);
}

/** Opens a socket and calls `show` with each message that is pushed. Returns `post(body)` and `close()`. */
function follow({ url, project, queue, token, show, tell = () => {} }) {
  const headers = { "Client-ID": crypto.randomUUID(), "X-Project-ID": project };
  let socket;
  let attempts = 0;
  let isOver = false;

  const ask = (action, body = {}, more = {}) =>
    socket.send(JSON.stringify({ action, body, headers: { ...headers, ...more } }));

  const subscribe = () => ask("subscription_create", { queue_name: queue });

  const open = () => {
    socket = new WebSocket(url);
    socket.onopen = () => (token ? ask("authenticate", {}, { "X-Auth-Token": token }) : subscribe());
    socket.onmessage = ({ data }) => {
      const document = JSON.parse(data);
      if (!document.request) {
        return show(document.body);
      }
      const { action } = document.request;
      const { status } = document.headers;
      tell(`${action}: ${status}`);
      if (action === "authenticate" && status === 200) {
        subscribe();
      } else if (action === "subscription_create" && status === 201) {
        attempts = 0;
      }
    };
    socket.onclose = (close) => {
      if (!isOver) {
        setTimeout(open, delayAfter(close, attempts++));
      }
    };
  };

  open();
  return {
    post: (body) => ask("message_post", { queue_name: queue, messages: [{ ttl: 300, body }] }),
    close: () => {
      isOver = true;
      socket.close();
    },
  };
}

if (typeof module !== "undefined") {
  module.exports = { delayAfter, follow };
}
