// Ask every few seconds how far the comparison is; load the page again when a trial has finished.
const line = document.querySelector("#live");
let finished;
async function ask() {
  try {
    const state = await (await fetch("/state")).json();
    if (finished !== undefined && state.finished !== finished) return location.reload();
    finished = state.finished;
    const running = state.running.length ? ` Now: ${state.running.join("; ")}.` : "";
    line.textContent = `${state.finished} of about ${state.total} trials have finished.${running}`;
  } catch {
    line.textContent = "The comparison has ended, or was stopped: this page is the state it had last.";
    return;
  }
  setTimeout(ask, 3000);
}
ask();
