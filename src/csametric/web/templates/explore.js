
/* The page: a picture that is dropped, pasted or chosen goes to the server, and what comes back into the explorer. */
(() => {
  const NO_ANSWER = 'The server does not answer; look whether csametric serve still runs, and send the picture again.';
  const BUSY = 'The server has too many visitors at once; send the picture again in a moment.';
  const element = document.getElementById('explorer');
  const first = document.getElementById('first');
  const find = (selector) => document.querySelector(selector);
  let request = new AbortController();

  function show(view) {
    find('.empty').hidden = true;
    mountExplorer(element, view);
  }

  function explain(message) {
    find('.error p').textContent = message;
    find('.error').hidden = !message;
  }

  function busy(words) {
    find('.busy').textContent = words;
    element.setAttribute('aria-busy', words !== '');
  }

  async function ask(file, signal) {
    const answer = await fetch('/attention', { method: 'POST', body: file, signal });
    const unread = answer.status === 503 ? BUSY : `The server answered with ${answer.status}; reload the page.`;
    const content = await answer.json().catch(() => ({ error: unread }));
    if (content.error) throw new RangeError(content.error);
    return content;
  }

  async function send(file) {
    request.abort();
    const mine = (request = new AbortController());
    explain('');
    busy('');
    const most = Number(document.body.dataset.mostBytes);
    if (file.size > most) return explain(`the file is larger than ${most / 2 ** 20} MiB; make the image smaller`);
    busy('Looking at the picture …');
    try {
      show(await ask(file, mine.signal));
    } catch (error) {
      if (mine === request) explain(error instanceof RangeError ? error.message : NO_ANSWER);
    }
    if (mine === request) busy('');
  }

  function sendFirst(files) {
    if (files.length) send(files[0]);
  }

  function dropping(on) {
    document.body.classList.toggle('is-dropping', on);
  }

  addEventListener('dragover', (event) => {
    event.preventDefault();
    dropping(true);
  });
  addEventListener('dragleave', (event) => event.relatedTarget === null && dropping(false));
  addEventListener('drop', (event) => {
    event.preventDefault();
    dropping(false);
    if (event.dataTransfer.files.length) sendFirst(event.dataTransfer.files);
    else explain('That was no file; save the image and drop the file, or paste the image itself.');
  });
  addEventListener('paste', (event) => sendFirst(event.clipboardData.files));
  find('.choose input').addEventListener('change', (event) => {
    sendFirst(event.target.files);
    event.target.value = '';
  });
  find('.error button').addEventListener('click', () => explain(''));
  if (first) show(JSON.parse(first.textContent));
})();
