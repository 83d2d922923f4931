/** The page *My orders*: one household's orders, the newest first, each step of them as it is made. */

import {Realtime, Refused} from "/realtime/client.js"

const LOOK_AGAIN_MS = 3_000
const PAGE = 20
const LONGEST_PAGE = 200
const ANSWER_WITHIN_MS = 10_000
const FRESH_FOR_MS = 30_000 // a token that expires sooner is not used any more
const WAY = ["placed", "paid", "reserved", "packed"]
const WORDS = {
  placed: "Placed", paid: "Paid", reserved: "Reserved", packed: "Packed", cancelling: "Cancelling", refused: "Refused",
}
const SAYS = {
  placed: "We have your order.",
  paid: "Paid. Your goods are being set aside.",
  reserved: "Your goods are set aside and being packed.",
  packed: "Packed, and ready for you.",
}
const WHY = {
  "payment declined": "Payment declined.",
  "out of stock": "Out of stock.",
  "overdue": "It took us too long.",
}
const CONNECTION = {
  connecting: "Connecting", live: "Live", away: "Connection lost, trying again", ended: "Not live",
}

const money = new Intl.NumberFormat("en-US", {style: "currency", currency: "USD"})
const day = new Intl.DateTimeFormat("en-GB", {day: "numeric", month: "long", year: "numeric"})
const time = new Intl.DateTimeFormat("en-GB", {hour: "2-digit", minute: "2-digit"})
const stillness = matchMedia("(prefers-reduced-motion: reduce)")
const $ = (id) => document.getElementById(id)

/** Who is signed in: {household, id, token, freshUntil}. The refresh token is a cookie that no script sees. */
let session = null
let realtime = null
const orders = new Map() // by id: {order, card}
const articles = new Map() // names, by id
let older = null // cursor of the orders that are not shown

// -- asking the server

/** Something that may be over in a moment. */
class Unavailable extends Error {
  constructor(problem) {
    super(problem.detail || problem.title)
    this.problem = problem
  }
}

const SIGNED_OUT = {title: "Signed out", status: 401}

/** Throws Refused for a no; Unavailable, or fetch's own errors, where there may be another answer later. */
async function ask(method, path, {body, token, headers} = {}) {
  const answer = await fetch(path, {
    method,
    body: body && JSON.stringify(body),
    headers: {
      ...(body && {"Content-Type": "application/json"}), ...(token && {Authorization: `Bearer ${token}`}), ...headers,
    },
    signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
  })
  if (answer.ok) return answer.status === 204 ? null : answer.json()
  const isProblem = answer.headers.get("content-type")?.startsWith("application/problem+json")
  const problem = isProblem ? await answer.json() : {title: answer.statusText, detail: "", status: answer.status}
  if (answer.status >= 500 || answer.status === 429) throw new Unavailable(problem)
  throw new Refused(problem)
}

/** The same in the household's name. Throws Unavailable as well when it is not signed in any more. */
async function askAs(method, path, more) {
  const mine = session
  const answer = async () => {
    if (!mine || session !== mine) throw new Unavailable(SIGNED_OUT)
    return ask(method, path, {...more, token: mine.token})
  }
  if (performance.now() > mine?.freshUntil) await refresh()
  const given = await answer().catch(async (error) => {
    if (!(error instanceof Refused) || error.problem.status !== 401) throw error
    await refresh() // the computer has slept, or the session has ended: this tells
    return answer()
  })
  if (session !== mine) throw new Unavailable(SIGNED_OUT) // never one household's orders on another's page
  return given
}

let refreshing = null

/** Trade the cookie for a new access token; all who ask at once get the same. Throws as `ask` does; who is refused is
 * shown the form. */
function refresh() {
  const mine = session
  refreshing ??= ask("POST", "/auth/refresh", {body: {}})
    .then(async (tokens) => {
      if (session !== mine) throw new Unavailable(SIGNED_OUT) // meanwhile
      if (mine && tokens.session_id !== mine.id) return startAnew() // another tab has signed in anew
      await enter(tokens)
    })
    .catch((error) => {
      if (error instanceof Refused) leave(tabs.isLeft() ? LEFT_ELSEWHERE : "You were signed out. Sign in again.")
      throw error
    })
    .finally(() => (refreshing = null))
  return refreshing
}

/** Load the page anew; nothing goes on in this one. */
function startAnew() {
  location.reload()
  return new Promise(() => {})
}

async function enter({access_token: token, expires_in, session_id: id}) {
  const freshUntil = performance.now() + expires_in * 1_000 - FRESH_FOR_MS
  if (!session) {
    const {subject} = await ask("GET", "/me", {token})
    const household = /^households\/(\d+)$/.exec(subject)?.[1]
    if (!household) {
      await ask("POST", "/auth/logout", {token})
      const detail = `this page is for households, and ${subject} is none`
      throw new Refused({title: "Not a household", detail, status: 403})
    }
    session = {household, id}
    tabs.tell(id)
  }
  Object.assign(session, {token, freshUntil})
}

const LEFT_ELSEWHERE = "You have logged out in another tab."

/** Whether this browser is signed in, for its other tabs and the next visit. No secret: that is in the cookie. */
const tabs = {
  key: "session",
  leaving: "leaving ", // before the id: a tab is logging out, and the others may be cut off before it is done
  told() { try { return localStorage.getItem(this.key) } catch { return undefined } }, // a frame may have no storage
  tell(id) { try { id ? localStorage.setItem(this.key, id) : localStorage.removeItem(this.key) } catch { /* so */ } },
  isLeft() { return this.told() === null || this.told()?.startsWith(this.leaving) },
}
let leaving = false // it is this tab that logs out
addEventListener("storage", ({key, newValue}) => {
  if (key !== tabs.key || newValue?.startsWith(tabs.leaving)) return
  if (newValue === null && session) leave(leaving ? "" : LEFT_ELSEWHERE)
  else if (newValue && newValue !== session?.id) startAnew()
})

// -- signing in and out

let challenge = null // of a second factor

$("sign-in").addEventListener("submit", async (submit) => {
  submit.preventDefault()
  const form = submit.target
  const {email, password, code} = Object.fromEntries(new FormData(form))
  complain("")
  if (!email || !password) return complain("Give your e-mail and your password.", email ? "password" : "email")
  await busy(form.querySelector("button"), async () => {
    try {
      const tokens = challenge
        ? await ask("POST", "/auth/login/code", {body: {challenge_id: challenge, code, browser: true}})
        : await ask("POST", "/auth/login", {body: {email, password, browser: true}})
      await enter(tokens)
      show()
      $("title").focus()
    } catch (error) {
      const {type, challenge_id} = error.problem ?? {}
      if (type !== "/problems/wrong-code") challenge = challenge_id ?? null
      $("second").hidden = !challenge
      complain(challenge_id ? "One step more: the code." : words(error), challenge ? "code" : "password")
    }
  })
})

$("sign-out").addEventListener("click", ({target}) => busy(target, async () => {
  realtime?.close()
  leaving = true
  tabs.tell(tabs.leaving + session.id)
  try {
    await askAs("POST", "/auth/logout")
    if (session) leave("")
  } catch (error) {
    if (!session) return
    tabs.tell(session.id)
    trouble(`You are still signed in: ${words(error)}`)
    follow()
  } finally {
    leaving = false
  }
}))

function complain(text, field) {
  $("complaint").textContent = text
  if (field) $(field).focus()
}

/** Whoever was here is signed in no more. */
function leave(why) {
  tabs.tell(null)
  showForm(why)
}

/** Show the form, and nothing of whoever was here. */
function showForm(why) {
  realtime?.close()
  session = realtime = older = challenge = null
  orders.clear()
  $("list").replaceChildren()
  $("news").textContent = ""
  trouble("")
  $("sign-in").reset()
  for (const id of ["where", "orders", "sign-out", "second"]) $(id).hidden = true
  $("sign-in").hidden = false
  complain(why, "email")
}

/** Show the household's orders, and follow them. */
function show() {
  $("sign-in").reset()
  $("sign-in").hidden = true
  for (const id of ["where", "orders", "sign-out"]) $(id).hidden = false
  $("who").textContent = `Household ${session.household}`
  $("news").textContent = "Each step of an order shows here as it is made."
  load()
  follow()
}

// -- following

function follow() {
  realtime = new Realtime({
    topics: [`households/${session.household}`],
    ticket: async (fresh) => {
      if (fresh) await refresh()
      return askAs("POST", "/realtime/tickets")
    },
  })
  let wasLive = false
  realtime.addEventListener("state", ({detail: {state, problem}}) => {
    $("connection").textContent = problem ? `Not live: ${problem.title}` : CONNECTION[state]
    $("connection").dataset.state = state
    if (state === "live" && !wasLive) load() // what happened before this moment is not told
    wasLive ||= state === "live"
  })
  realtime.addEventListener("event", ({detail: {event}}) => {
    if (event.type.startsWith("shop.order.")) put(event.data, {isNews: true})
  })
  realtime.addEventListener("gap", load)
  realtime.start()
}

let loading = Promise.resolve()
let retry = null

/** Look how things stand: one look after the other, since each must begin after what called for it. */
function load() {
  const mine = session
  loading = loading.then(async () => {
    if (!mine || session !== mine) return
    clearTimeout(retry)
    try {
      await look()
      trouble("")
    } catch (error) {
      if (session !== mine) return
      trouble(words(error))
      if (!(error instanceof Refused)) retry = setTimeout(load, LOOK_AGAIN_MS)
    }
  })
}

async function look() {
  const count = Math.max(PAGE, orders.size)
  const [view, truth] = await Promise.all([
    newest(`/households/${session.household}/orders`, count).catch(unlessRefused), newest("/orders", count),
  ])
  view.items.forEach((order) => put(order))
  older = view.next
  // The view has all of an order in one request, but is some milliseconds behind, or minutes when its worker is ill.
  // The database is never behind: what it has of an order that the view has not yet is asked for one by one.
  const ahead = truth.items.filter(({order_id: id, version}) => !(orders.get(id)?.order.version >= version))
  for (const order of await Promise.all(ahead.map(({order_id: id}) => askAs("GET", `/orders/${id}`)))) put(order)
  $("older").hidden = !older
  $("empty").hidden = orders.size > 0
}

async function newest(path, count) {
  const items = []
  let next = null
  do {
    const query = new URLSearchParams({limit: Math.min(count, LONGEST_PAGE), ...(next && {cursor: next})})
    const page = await askAs("GET", `${path}?${query}`)
    items.push(...page.items)
    next = page.next
  } while (next && items.length < count)
  return {items, next}
}

function unlessRefused(error) {
  if (error instanceof Refused) throw error
  return {items: [], next: null}
}

$("older").addEventListener("click", ({target}) => busy(target, async () => {
  try {
    const query = new URLSearchParams({limit: PAGE, cursor: older})
    const page = await askAs("GET", `/households/${session.household}/orders?${query}`)
    page.items.forEach((order) => put(order))
    older = page.next
    $("older").hidden = !older
  } catch (error) {
    trouble(words(error))
  }
}))

// -- showing orders

/** Show an order as it is in this version, unless a later one is shown already. */
function put(order, {isNews = false} = {}) {
  const known = orders.get(order.order_id)
  if (known && known.order.version >= order.version) return
  const card = known?.card ?? newCard(order)
  orders.set(order.order_id, {order, card})
  draw(card, order)
  if (!known) insert(card, isNews)
  if (!isNews) return
  flash(card)
  $("empty").hidden = true
  const status = order.status === "cancelling" ? "being cancelled" : order.status
  const what = known ? `Order ${number(order)} is ${status}` : `New order ${number(order)}, ${totalOf(order)}`
  $("news").textContent = `${time.format(new Date())} · ${what}`
}

const totalOf = ({total_cents: cents}) => money.format(cents / 100)
const number = ({order_id: id}) => `#${id.slice(-6)}`

function newCard(order) {
  const card = $("order").content.cloneNode(true).firstElementChild
  const placed = new Date(order.placed_at)
  const isToday = day.format(placed) === day.format(new Date())
  card.id = order.order_id
  card.querySelector("time").dateTime = order.placed_at
  card.querySelector("time").textContent = `${isToday ? "Today" : day.format(placed)}, ${time.format(placed)}`
  card.querySelector(".number").textContent = number(order)
  card.querySelector(".total").textContent = totalOf(order)
  card.querySelector(".steps").ariaLabel = `Steps of order ${number(order)}`
  card.querySelector("tbody").replaceChildren(...order.lines.map(rowOf))
  let key = crypto.randomUUID() // the same until there is an answer: however often it is sent, it is ordered once
  card.querySelector(".again").addEventListener("click", ({target}) => busy(target, async () => {
    try {
      await askAs("POST", "/orders", {body: {lines: order.lines}, headers: {"Idempotency-Key": key}})
      key = crypto.randomUUID()
      trouble("")
    } catch (error) {
      trouble(`Not ordered, or we do not know: press again, it is ordered once. ${words(error)}`)
    }
  }))
  name(card, order)
  return card
}

function rowOf(line) {
  const {quantity, product_id: id} = line
  const row = document.createElement("tr")
  for (const text of [`${quantity} ×`, `Article ${id}`, totalOf(line)]) row.insertCell().textContent = text
  row.cells[1].dataset.article = id
  return row
}

/** The newest first: ids begin with their time (UUIDv7). */
function insert(card, isNews) {
  const cards = [...$("list").children]
  const next = cards.find((other) => other.id < card.id) ?? null
  const before = isNews && !stillness.matches ? cards.map((one) => one.getBoundingClientRect().top) : []
  $("list").insertBefore(card, next)
  // Those below do not jump: they begin where they were and slide to where they are (FLIP).
  before.forEach((top, at) => {
    const byPx = top - cards[at].getBoundingClientRect().top
    if (byPx) cards[at].animate({transform: [`translateY(${byPx}px)`, "none"]}, {duration: 300, easing: "ease-out"})
  })
}

function draw(card, order) {
  card.dataset.status = order.status
  card.dataset.version = order.version
  card.querySelector(".says").textContent = sayingOf(order)
  const steps = stepsOf(order)
  const list = card.querySelector(".steps")
  while (list.children.length > steps.length) list.lastElementChild.remove()
  steps.forEach(({step, state}, at) => {
    const item = list.children[at] ?? list.appendChild(document.createElement("li"))
    item.className = state
    item.ariaCurrent = at === steps.findLastIndex((one) => one.state !== "later") ? "step" : null
    const mark = document.createElement("i")
    mark.ariaHidden = true
    mark.textContent = {done: "✓", bad: "✗"}[state] ?? ""
    const hint = document.createElement("span")
    hint.className = "unseen"
    hint.textContent = {done: ": done", later: ": still to come"}[state] ?? ""
    item.replaceChildren(mark, WORDS[step], hint)
  })
}

/** The way of an order, as far as it is known. One that is stopped ends where it was stopped. */
function stepsOf({status, reason}) {
  const at = WAY.indexOf(status)
  if (at >= 0)
    return WAY.map((step, i) => ({step, state: i < at || status === "packed" ? "done" : i === at ? "now" : "later"}))
  const made = reason === "out of stock" ? ["placed", "paid"] : ["placed"]
  const end = {step: status, state: status === "refused" ? "bad" : "going"}
  return [...made.map((step) => ({step, state: "done"})), end]
}

function sayingOf({status, reason}) {
  if (status === "cancelling") return `${WHY[reason] ?? ""} What you paid comes back.`
  return status === "refused" ? `${WHY[reason] ?? ""} You pay nothing.` : SAYS[status]
}

function flash(card) {
  card.classList.remove("changed")
  void card.offsetWidth // or the animation would not begin again
  card.classList.add("changed")
}

// -- what articles are called

const unnamed = new Map() // cards that wait for names, with their orders
let naming = null

/** Have a card show what its articles are called; all cards of one moment ask together. */
function name(card, order) {
  unnamed.set(card, order)
  naming ??= Promise.resolve().then(nameAll)
}

async function nameAll() {
  naming = null
  const waiting = [...unnamed]
  unnamed.clear()
  const ids = [...new Set(waiting.flatMap(([, order]) => order.lines.map((line) => line.product_id)))]
  waiting.forEach(([card, order]) => drawNames(card, order))
  const unknown = ids.filter((id) => !articles.has(id))
  try {
    for (let at = 0; at < unknown.length; at += 100) {
      const found = await ask("GET", `/products?ids=${unknown.slice(at, at + 100)}`)
      for (const {product_id, type, category} of found) articles.set(product_id, sentence(type ?? category))
    }
  } catch (error) {
    console.info("articles keep their numbers:", words(error))
  }
  waiting.forEach(([card, order]) => drawNames(card, order))
}

function drawNames(card, {lines}) {
  const nameOf = (id) => articles.get(Number(id)) || `Article ${id}`
  for (const cell of card.querySelectorAll("[data-article]")) cell.textContent = nameOf(cell.dataset.article)
  const [first, second, ...rest] = lines.map((line) => nameOf(line.product_id))
  const more = rest.length ? ` and ${rest.length} more` : ""
  card.querySelector("summary").textContent = `${first}${second ? `, ${second}` : ""}${more}`
}

const sentence = (text) => text && text[0].toUpperCase() + text.slice(1).toLowerCase()

// -- the rest

/** Do one thing at a time: a button that is busy keeps the focus, and does nothing when it is pressed. */
async function busy(button, work) {
  if (button.ariaDisabled === "true") return
  button.ariaDisabled = "true"
  try {
    await work()
  } finally {
    button.ariaDisabled = null
  }
}

function trouble(text) {
  $("trouble").textContent = text
  $("trouble").hidden = !text
}

/** What went wrong, as a sentence. */
function words({problem}) {
  if (!problem || problem.status >= 500) return "The shop does not answer now. Try again in a moment."
  const text = problem.detail || problem.title
  return `${text[0].toUpperCase()}${text.slice(1)}${text.endsWith(".") ? "" : "."}`
}

// A first visit asks nothing: there is no cookie, and a refusal would be an error in the console.
if (tabs.told()) {
  try {
    await refresh()
    show()
  } catch (error) {
    if (!(error instanceof Refused)) showForm(words(error))
  }
} else showForm("")
