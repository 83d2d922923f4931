/**
 * A client of the WebSocket at /ws for browsers: follows topics, comes back when the connection ends, and goes on
 * where it was. One ES module, no dependencies. The protocol is that of `showcase/realtime/application/messages.py`.
 *
 *   const realtime = new Realtime({ticket, topics: ["households/7"]})
 *   realtime.addEventListener("event", ({detail}) => show(detail.event))    // {topic, id, event}
 *   realtime.addEventListener("gap", () => lookAnew())                      // {topics, why, at?, count?}
 *   realtime.addEventListener("state", ({detail}) => tell(detail.state))    // {state, problem?}
 *   realtime.start()
 *
 * States: "connecting"; "live" once the server has confirmed all topics; "away" while the connection is lost; "ended"
 * when coming back is of no use, and `problem` says why (RFC 9457).
 */

export const SUBPROTOCOL = "showcase.v1"

/** The server has said no, and asking again does not mend it. Thrown by `ticket`, it ends the client for good. */
export class Refused extends Error {
  /** @param {{title: string, detail: string, status: number}} problem as it came (RFC 9457). */
  constructor(problem) {
    super(`${problem.title}: ${problem.detail}`)
    this.problem = problem
  }
}

const LONGEST_TIMEOUT_MS = 2 ** 31 - 1 // what setTimeout takes: it fires at once for more
const RENEW_AFTER = 0.8 // of the time until the server would close the connection

/** Whether coming back with another ticket may help: the server is overloaded, or the ticket was too old. */
const mayMend = ({status}) => status >= 500 || status === 429 || status === 401

export class Realtime extends EventTarget {
  #options
  #socket = null
  #timers = new Map()
  #attempts = 0
  #heardAt = 0

  /** "idle" until it is started, then as above. */
  state = "idle"

  /**
   * @param {object} options
   * @param {(fresh: boolean) => Promise<{ticket: string}>} options.ticket POSTs /realtime/tickets; with `fresh` by an
   *   access token that was issued just now. Throws Refused for a no; after anything else it is asked again.
   * @param {string[]} options.topics what to follow.
   * @param {string | URL} [options.url] of the WebSocket, relative to the page's.
   * @param {string} [options.after] id of an event: all that comes after it is told first.
   * @param {number} [options.window] so many events may be under way that are not handled yet: the only way to slow
   *   a server down, since browsers read on whatever a page does. The ticket goes in the first message then.
   * @param {number} [options.answerWithinMs] a server that takes longer is gone.
   * @param {number} [options.pingEveryMs] how often it is asked whether it is there.
   * @param {number} [options.firstPauseMs] the longest pause before it first comes back; doubled each time…
   * @param {number} [options.longestPauseMs] …up to this.
   */
  constructor({
    ticket, topics, url = "/ws", after = null, window = null,
    answerWithinMs = 10_000, pingEveryMs = 20_000, firstPauseMs = 500, longestPauseMs = 10_000,
  }) {
    super()
    const absolute = new URL(url, globalThis.location?.href)
    absolute.protocol = absolute.protocol.replace("http", "ws")
    this.#options = {ticket, topics, url: absolute, window, answerWithinMs, pingEveryMs, firstPauseMs, longestPauseMs}
    /** Id of the event that was told last: give it as `after` to go on from there. */
    this.after = after
  }

  /** Connect, and stay connected until it is closed or refused. */
  start() {
    globalThis.addEventListener?.("online", this)
    globalThis.document?.addEventListener("visibilitychange", this)
    this.#become("connecting")
    this.#connect()
  }

  /** End it, for good. */
  close() {
    this.#end()
  }

  /** The network is back, or somebody looks again: find out now how things stand. */
  handleEvent() {
    if (this.#timers.has("retry")) this.#connect()
    else if (this.state === "live") this.#ping()
  }

  async #connect() {
    this.#forget()
    const attempt = (this.#socket = {close() {}}) // takes the place of the socket until there is one
    this.#wait("answer", this.#options.answerWithinMs, () => this.#lost())
    try {
      const {ticket} = await this.#options.ticket(false)
      if (this.#socket === attempt) this.#open(ticket)
    } catch (error) {
      if (this.#socket !== attempt) return
      if (error instanceof Refused) this.#end(error.problem)
      else this.#lost()
    }
  }

  #open(ticket) {
    const {url, window} = this.#options
    const protocols = window === null ? [SUBPROTOCOL, `ticket.${ticket}`] : [SUBPROTOCOL]
    const socket = (this.#socket = new WebSocket(url, protocols))
    if (window !== null) socket.onopen = () => this.#say({type: "hello", ticket, window})
    socket.onmessage = ({data}) => this.#heard(JSON.parse(data))
    socket.onclose = () => this.#lost()
  }

  #heard(message) {
    this.#heardAt = performance.now()
    if (this.#timers.has("answer")) this.#wait("answer", this.#options.answerWithinMs, () => this.#lost())
    switch (message.type) {
      case "welcome":
        this.#renewBefore(message.expires_at)
        if (this.state !== "live")
          this.#say({type: "subscribe", topics: this.#options.topics, ...(this.after && {after: this.after})})
        break
      case "subscribed":
        this.#attempts = 0
        this.after ??= message.at
        this.#cancel("answer")
        this.#wait("ping", this.#options.pingEveryMs, () => this.#ping())
        this.#become("live")
        break
      case "event":
        this.after = message.id
        this.#tell("event", message)
        if (this.#options.window !== null) this.#say({type: "ack", id: message.id})
        break
      case "reset":
        this.after = message.at
        this.#tell("gap", message)
        break
      case "dropped":
        this.#tell("gap", {topics: [message.topic], count: message.count, why: "too slow"})
        break
      case "error":
        if (mayMend(message.problem)) this.#lost()
        else this.#end(message.problem)
    }
  }

  /** A connection of which nobody is at the other end looks like a quiet one: only an answer tells them apart. */
  #ping() {
    const asked = performance.now()
    this.#say({type: "ping"})
    this.#wait("ping", this.#options.answerWithinMs, () => {
      if (this.#heardAt < asked) this.#lost()
      else this.#wait("ping", this.#options.pingEveryMs, () => this.#ping())
    })
  }

  /** Say hello again by a fresh token, before the present one expires and with it the connection. */
  #renewBefore(expiresAt) {
    if (!expiresAt) return
    const leftMs = Math.max(1_000, Date.parse(expiresAt) - Date.now()) // also by a clock that is wrong: no storm
    const socket = this.#socket
    this.#wait("renew", leftMs * RENEW_AFTER, async () => {
      try {
        const {ticket} = await this.#options.ticket(true)
        if (this.#socket === socket) this.#say({type: "hello", ticket})
      } catch (error) {
        // Without an answer the server will close the connection, and coming back is the next try.
        if (this.#socket === socket && error instanceof Refused) this.#end(error.problem)
      }
    })
  }

  /** Come back after a growing pause with full jitter: not all clients of a server that restarts at the same moment. */
  #lost() {
    this.#forget()
    this.#become("away")
    const {firstPauseMs, longestPauseMs} = this.#options
    const longestMs = Math.min(longestPauseMs, firstPauseMs * 2 ** this.#attempts++)
    this.#wait("retry", Math.random() * longestMs, () => this.#connect())
  }

  #end(problem) {
    this.#forget()
    globalThis.removeEventListener?.("online", this)
    globalThis.document?.removeEventListener("visibilitychange", this)
    this.#become("ended", problem)
  }

  /** Nothing of this connection counts any more. That it closes is not waited for: if it is half open it never does. */
  #forget() {
    for (const name of [...this.#timers.keys()]) this.#cancel(name)
    const socket = this.#socket
    this.#socket = null
    if (!socket) return
    socket.onopen = socket.onmessage = socket.onclose = null
    socket.close()
  }

  #say(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message))
  }

  #become(state, problem) {
    if (state === this.state) return
    this.state = state
    this.#tell("state", {state, problem})
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, {detail}))
  }

  #wait(name, ms, then) {
    this.#cancel(name)
    const fire = () => (this.#timers.delete(name), then())
    this.#timers.set(name, setTimeout(fire, Math.min(ms, LONGEST_TIMEOUT_MS)))
  }

  #cancel(name) {
    clearTimeout(this.#timers.get(name))
    this.#timers.delete(name)
  }
}
