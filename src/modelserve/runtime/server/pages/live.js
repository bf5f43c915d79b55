// Asks for the same page again every two seconds, while somebody looks, and takes over what has changed.
const live = document.getElementById("live");
async function renew() {
  if (document.hidden) return;
  try {
    const answer = await fetch("/", { headers: { accept: "text/html" } });
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const newer = page.getElementById("live");
    if (newer) live.replaceChildren(...newer.childNodes);
    document.title = page.title;
  } catch {
    live.querySelector(".state")?.classList.replace("good", "bad");
  }
}
if (live) setInterval(renew, 2000);
