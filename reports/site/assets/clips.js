// The usable training clips: filters, fifty at a time, each with its player where its wav is there.
// Every text of the data enters the page by textContent; an address is made of an id of VGG-Sound's form.
(() => {
  const PAGE_SIZE = 50, get = (id) => document.getElementById(id), form = get('clip-filters');
  if (!form) return;
  const field = form.elements;
  let data = null, view = [], page = 0;
  function make(tag, text, ...children) {
    const element = document.createElement(tag);
    element.textContent = text;
    element.append(...children);
    return element;
  }
  const valueOf = (column, index) => data[column].values[data[column].codes[index]];
  function player(index) {
    const id = data.id[index], parts = /^([A-Za-z0-9_-]{11})_([0-9]{6})$/.exec(id);
    if (data.there[index] !== '1' || !parts) return '';
    const audio = make('audio', '');
    Object.assign(audio, { controls: true, preload: 'none', src: `../../${data.folder}/${parts[1]}_${Number(parts[2])}.wav` });
    audio.setAttribute('aria-label', 'Clip ' + id);
    audio.addEventListener('error', () => audio.replaceWith(' not found beside this report'));
    return audio;
  }
  function row(index) {
    const head = make('th', '', make('code', data.id[index]), player(index));
    head.scope = 'row';
    return make('tr', '', head, make('td', valueOf('source', index)), make('td', valueOf('note', index)));
  }
  function show() {
    get('rows').replaceChildren(...view.slice(page * PAGE_SIZE, (page + 1) * PAGE_SIZE).map(row));
    get('count').textContent = `${view.length} of ${data.id.length} clips.`;
    get('previous-page').disabled = page === 0;
    get('next-page').disabled = (page + 1) * PAGE_SIZE >= view.length;
  }
  function list() {
    const text = field.text.value.trim().toLowerCase();
    view = [...data.id.keys()].filter((index) => data.id[index].toLowerCase().includes(text) && ['source', 'note'].every((name) => field[name].value === '' || data[name].codes[index] === Number(field[name].value)));
    page = 0;
    show();
  }
  window.reportData = (kind, index, value) => {
    data = value;
    for (const name of ['source', 'note']) field[name].replaceChildren(new Option('all', ''), ...value[name].values.map((text, code) => new Option(text || 'none', code)));
    form.addEventListener('input', list);
    for (const [id, by] of [['previous-page', -1], ['next-page', 1]]) get(id).addEventListener('click', () => { page += by; show(); });
    get('clips').hidden = false;
    list();
    document.documentElement.dataset.ready = '0';
  };
  form.addEventListener('submit', (event) => event.preventDefault());
  const script = document.createElement('script');
  script.src = 'data/clips.js';
  document.head.append(script);
})();
