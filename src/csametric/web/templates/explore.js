
/* The page: sends a dropped, pasted or chosen picture to the server and shows its attention in the explorer. */
(() => {
  const NO_ANSWER = 'The server does not respond; check that it is still running, then send the picture again.';
  const BUSY = 'The server has too many connections; send the picture again in a moment.';
  const element = document.getElementById('explorer');
  const first = document.getElementById('first');
  const find = (selector) => document.querySelector(selector);
  let request = new AbortController();

  function show(view) {
    find('.empty').hidden = true;
    mountExplorer(element, view);
  }

  function showError(message) {
    find('.error p').textContent = message;
    find('.error').hidden = !message;
  }

  function showBusy(text) {
    find('.busy').textContent = text;
    element.setAttribute('aria-busy', text !== '');
  }

  async function requestView(file, signal) {
    const response = await fetch('/attention', { method: 'POST', body: file, signal });
    const unreadable = response.status === 503 ? BUSY : `The response cannot be read (status ${response.status}); reload the page.`;
    const content = await response.json().catch(() => ({ error: unreadable }));
    if (content.error) throw new RangeError(content.error);
    return content;
  }

  async function send(file) {
    request.abort();
    const current = (request = new AbortController());
    showError('');
    showBusy('');
    const mostBytes = Number(document.body.dataset.mostBytes);
    if (file.size > mostBytes) return showError(`the file is larger than ${mostBytes / 2 ** 20} MiB; make the image smaller`);
    showBusy('Computing the attention …');
    try {
      show(await requestView(file, current.signal));
    } catch (error) {
      if (current === request) showError(error instanceof RangeError ? error.message : NO_ANSWER);
    }
    if (current === request) showBusy('');
  }

  function sendFirst(files) {
    if (files.length) send(files[0]);
  }

  function setDropping(isDropping) {
    document.body.classList.toggle('is-dropping', isDropping);
  }

  addEventListener('dragover', (event) => {
    event.preventDefault();
    setDropping(true);
  });
  addEventListener('dragleave', (event) => event.relatedTarget === null && setDropping(false));
  addEventListener('drop', (event) => {
    event.preventDefault();
    setDropping(false);
    if (event.dataTransfer.files.length) sendFirst(event.dataTransfer.files);
    else showError('What was dropped is not a file; save the image and drop the file, or paste the image.');
  });
  addEventListener('paste', (event) => sendFirst(event.clipboardData.files));
  find('.choose input').addEventListener('change', (event) => {
    sendFirst(event.target.files);
    event.target.value = '';
  });
  find('.error button').addEventListener('click', () => showError(''));
  if (first) show(JSON.parse(first.textContent));
})();
