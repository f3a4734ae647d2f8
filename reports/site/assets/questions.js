
// The question list: filters, two models side by side, one question in full with its clip.
// Every text of the data enters the page by textContent; the state lives in the address after '#'.
(() => {
  const PAGE_SIZE = 50, LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', NONE = '-', OTHER = '?';
  const FILTERS = ['a', 'b', 'scorer', 'show', 'task', 'sub', 'level', 'text'];
  const get = (id) => document.getElementById(id);
  const form = get('filters'), rows = get('rows'), detail = get('detail'), field = form.elements;
  const start = JSON.parse(get('start').textContent).benchmarks;
  const questions = new Map(), outputs = new Map(), waiting = new Map();
  let current = null, data = null, view = [], page = 0, openId = null, shownOutput = null, rangeWorks = null;

  // Data scripts call this; a classic script loads from disk too, where fetch is refused.
  window.reportData = (kind, index, value) => {
    if (kind === 'questions') questions.set(index, value);
    else outputs.set(current + '/' + index, value);
  };
  function load(address, isThere) {
    if (isThere()) return Promise.resolve();
    if (!waiting.has(address)) {
      waiting.set(address, new Promise((resolve, reject) => {
        const script = document.createElement('script');
        script.src = address;
        script.onload = () => { waiting.delete(address); resolve(); };
        script.onerror = () => { waiting.delete(address); reject(new Error(address + ' cannot be loaded')); };
        document.head.append(script);
      }));
    }
    return waiting.get(address);
  }
  function make(tag, options, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(options || {})) {
      if (name === 'text') element.textContent = value;
      else if (name === 'onclick') element.addEventListener('click', value);
      else if (value !== null && value !== undefined) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  }
  function fill(select, values, first) {
    select.replaceChildren(...(first === undefined ? [] : [new Option(first, '')]), ...values.map((value) => new Option(value, value)));
  }
  const state = () => new URLSearchParams(location.hash.slice(1));
  function stateWith(id) {
    const params = new URLSearchParams();
    if (start.length > 1) params.set('benchmark', start[current].name);
    for (const name of FILTERS) if (field[name].value !== defaultOf(name)) params.set(name, field[name].value);
    if (page) params.set('page', String(page + 1));
    if (id !== null) params.set('id', id);
    return '#' + params;
  }
  const remember = () => history.replaceState(null, '', stateWith(openId));
  function defaultOf(name) {
    if (name === 'a') return data.evaluations[data.compared[0]]?.label ?? '';
    if (name === 'b') return data.evaluations[data.compared[1]]?.label ?? '';
    return name === 'scorer' ? data.scorers[0] ?? '' : '';
  }

  const evaluation = (name) => data.evaluations.find((one) => one.label === field[name].value) ?? null;
  function mark(one, index) {
    const scorer = data.scorers.indexOf(field.scorer.value);
    return one && scorer >= 0 ? one.marks[scorer][index] : NONE;
  }
  const inWords = (symbol) => ({ 1: 'right', 0: 'wrong' })[symbol] ?? 'not judged';
  const withSign = (symbol) => ({ 1: '\u2713 ', 0: '\u2717 ' })[symbol] ?? '';
  const cssOf = (symbol) => ({ 1: 'right', 0: 'wrong' })[symbol] ?? 'withheld';
  const valueOf = (column, index) => data[column].values[data[column].codes[index]];

  function matches(index) {
    const [a, b] = [evaluation('a'), evaluation('b')], one = mark(a, index), two = mark(b, index);
    const show = field.show.value, text = field.text.value.trim().toLowerCase();
    if (show === 'right' && two !== '1' || show === 'wrong' && two !== '0') return false;
    if (show === 'gained' && one + two !== '01' || show === 'lost' && one + two !== '10') return false;
    if (show === 'flipped' && one === two) return false;
    if (show === 'different' && a?.picks[index] === b?.picks[index]) return false;
    if (show === 'unparsed' && b?.parsed[index] !== '0') return false;
    if (field.task.value && valueOf('task', index) !== field.task.value) return false;
    if (field.sub.value && valueOf('sub_category', index) !== field.sub.value) return false;
    if (field.level.value && valueOf('difficulty', index) !== field.level.value) return false;
    return !text || [data.question[index], data.id[index], ...data.choices[index]].some((part) => String(part).toLowerCase().includes(text));
  }
  function list() {
    view = [];
    for (let index = 0; index < data.id.length; index++) if (matches(index)) view.push(index);
    page = Math.max(0, Math.min(page, Math.ceil(view.length / PAGE_SIZE) - 1));
    const numRight = view.filter((index) => mark(evaluation('b'), index) === '1').length;
    const share = view.length && !['right', 'wrong', 'gained', 'lost'].includes(field.show.value) ? `; the second is right on ${(100 * numRight / view.length).toFixed(1)} %` : '';
    get('count').textContent = `${view.length} of ${data.id.length} questions${share}`;
    showPage();
  }
  function showPage() {
    const [a, b] = [evaluation('a'), evaluation('b')];
    rows.replaceChildren(...view.slice(page * PAGE_SIZE, (page + 1) * PAGE_SIZE).map((index) => {
      const link = make('a', { href: stateWith(String(data.id[index])), dir: 'auto', text: data.question[index] });
      link.addEventListener('click', (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault();
        open(index, true);
      });
      const cells = [a, b].map((one) => make('td', {}, make('span', { class: cssOf(mark(one, index)), text: withSign(mark(one, index)) + inWords(mark(one, index)) })));
      const row = make('tr', {}, make('td', {}, link), make('td', { text: valueOf('task', index) }), ...cells);
      row.dataset.index = String(index);
      return row;
    }));
    const numPages = Math.max(1, Math.ceil(view.length / PAGE_SIZE));
    get('page').textContent = `page ${page + 1} of ${numPages}`;
    get('previous-page').disabled = page === 0;
    get('next-page').disabled = page + 1 >= numPages;
    markCurrent();
  }
  function markCurrent() {
    for (const row of rows.rows) {
      if (String(data.id[Number(row.dataset.index)]) === openId) row.setAttribute('aria-current', 'true');
      else row.removeAttribute('aria-current');
    }
  }

  function open(index, takesFocus) {
    openId = String(data.id[index]);
    const position = view.indexOf(index);
    if (position >= 0 && Math.floor(position / PAGE_SIZE) !== page) { page = Math.floor(position / PAGE_SIZE); showPage(); }
    markCurrent();
    showDetail(index);
    remember();
    if (takesFocus) detail.focus({ preventScroll: true });
    if (matchMedia('(max-width: 52rem)').matches) detail.scrollIntoView();
    else { detail.scrollTop = 0; rows.querySelector('[aria-current]')?.scrollIntoView({ block: 'nearest' }); }
  }
  function step(by) {
    const index = data.id.findIndex((id) => String(id) === openId), position = view.indexOf(index);
    const next = view[position < 0 ? 0 : position + by];
    if (next !== undefined) open(next, true);
  }
  function showDetail(index) {
    const position = view.indexOf(index), answer = data.answer[index];
    const facts = [valueOf('task', index), valueOf('sub_category', index), valueOf('difficulty', index), data.dataset[index]].filter(Boolean).join(' \u00b7 ');
    detail.replaceChildren(
      make('p', { class: 'pager' },
        button('\u2190 Previous', () => step(-1), position <= 0), button('Next \u2192', () => step(1), position < 0 || position + 1 >= view.length),
        make('span', { class: 'small', text: position < 0 ? 'not in the filtered list' : `${position + 1} of ${view.length}` })),
      make('h2', { dir: 'auto', text: data.question[index] }),
      make('p', { class: 'small', text: facts }),
      player(index),
      make('ol', { class: 'choices' }, ...data.choices[index].map((choice, place) => choiceItem(index, choice, place, answer))),
      make('h3', { text: 'Answers of every model' }), strip(index, (one) => !one.control),
      ...(data.evaluations.some((one) => one.control) ? [make('h3', { text: 'Controls' }), strip(index, (one) => one.control)] : []),
      make('div', { id: 'output' }),
      make('p', { class: 'small' }, make('a', { href: stateWith(openId), text: 'Link to this question' }), ' \u00b7 id ', make('code', { dir: 'auto', text: data.id[index] })));
    showOutput(index, shownOutput && data.evaluations.includes(shownOutput) ? shownOutput : evaluation('b'));
  }
  function button(text, action, isDisabled) {
    const element = make('button', { type: 'button', text, onclick: action });
    element.disabled = isDisabled;
    return element;
  }
  function choiceItem(index, choice, place, answer) {
    const said = [];
    if (choice === answer) said.push('right answer');
    for (const one of new Set([evaluation('a'), evaluation('b')])) if (one?.picks[index] === place.toString(36)) said.push('chosen by ' + one.label);
    return make('li', { class: choice === answer ? 'answer' : null },
      make('span', { class: 'letter', text: LETTERS[place] ?? String(place + 1) }), make('span', { dir: 'auto', text: choice }), make('span', { class: 'said', text: said.join(', ') }));
  }
  function strip(index, wanted) {
    return make('ul', { class: 'strip' }, ...data.evaluations.filter(wanted).map((one) => {
      const symbol = mark(one, index), pick = one.picks[index];
      const letter = pick === NONE ? 'no answer' : pick === OTHER ? 'another text' : LETTERS[parseInt(pick, 36)];
      const toggle = make('button', { type: 'button', 'aria-pressed': 'false', onclick: () => showOutput(index, one) }, make('span', { text: one.label + ' ' }), make('span', { class: cssOf(symbol), text: withSign(symbol) + inWords(symbol) }), make('span', { class: 'muted', text: ' ' + letter }));
      toggle.dataset.label = one.label;
      return make('li', {}, toggle);
    }));
  }
  async function showOutput(index, one) {
    const place = get('output'), number = data.evaluations.indexOf(one), id = openId;
    if (!one) { place.replaceChildren(); return; }
    shownOutput = one;
    for (const toggle of detail.querySelectorAll('.strip button')) toggle.setAttribute('aria-pressed', String(toggle.dataset.label === one.label));
    const key = current + '/' + number, address = `${start[current].folder}/${String(number).padStart(3, '0')}.js`;
    try {
      await load(address, () => outputs.has(key));
    } catch (error) {
      place.replaceChildren(make('p', { text: error.message }));
      return;
    }
    if (id !== openId || shownOutput !== one || place !== get('output')) return;
    const found = outputs.get(key), completion = found.completions[index], answer = found.answers[index];
    const facts = data.scorers.map((name, scorer) => `${name}: ${inWords(one.marks[scorer][index])}`);
    if (found.tokens[index] !== null) facts.push(`${found.tokens[index]} tokens`);
    if (found.finished[index] === '0') facts.push('cut off');
    place.replaceChildren(
      make('h3', { text: 'Output of ' + one.label }),
      completion === null ? make('p', { text: 'No output: counted as wrong.' }) : make('pre', { dir: 'auto', text: completion }),
      make('dl', { class: 'keys' },
        make('dt', { text: 'Answer taken' }), make('dd', { dir: 'auto', text: answer ?? 'none' }),
        make('dt', { text: 'Verdict' }), make('dd', { text: facts.join(', ') }),
        make('dt', { text: 'Rule' }), make('dd', { dir: 'auto', text: found.reasons.values[found.reasons.codes[index]] })));
  }

  function player(index) {
    const address = data.audio[index];
    if (!address) return make('p', { class: 'small', text: 'No audio file in this report.' });
    const audio = make('audio', { controls: '', preload: 'none', 'aria-label': 'Clip of this question' });
    setSource(audio, address);
    return audio;
  }
  // A server without byte ranges makes every seek fall back to the start: then the whole clip is held in memory.
  async function setSource(audio, address) {
    if (location.protocol === 'file:') { audio.src = address; return; }
    try {
      rangeWorks ??= (await fetch(address, { headers: { Range: 'bytes=0-1' } })).status === 206;
      audio.src = rangeWorks ? address : URL.createObjectURL(await (await fetch(address)).blob());
    } catch {
      audio.src = address;
    }
  }

  async function route() {
    const params = state(), wanted = start.findIndex((one) => one.name === params.get('benchmark'));
    const next = Math.max(0, wanted);
    if (next !== current) {
      current = next;
      await load(start[current].folder + '/questions.js', () => questions.has(next));
      if (current !== next) return;
      data = questions.get(current);
      prepareFilters();
    }
    for (const name of FILTERS) {
      const value = params.get(name) ?? defaultOf(name);
      field[name].value = value;
      if (field[name].selectedIndex === -1) field[name].value = defaultOf(name);
    }
    page = Math.max(0, (Number(params.get('page')) || 1) - 1);
    openId = params.get('id');
    list();
    const index = data.id.findIndex((id) => String(id) === openId);
    if (index >= 0) open(index, false);
    else detail.replaceChildren(make('p', { class: 'muted', text: openId === null ? 'Choose a question from the list.' : 'There is no question with this id.' }));
    performance.mark('ready');
    document.documentElement.dataset.ready = String(current);
  }
  function prepareFilters() {
    field.benchmark.value = start[current].name;
    const names = data.evaluations.map((one) => one.label);
    fill(field.a, names); fill(field.b, names); fill(field.scorer, data.scorers);
    fill(field.task, data.task.values, 'all'); fill(field.sub, data.sub_category.values, 'all'); fill(field.level, data.difficulty.values, 'all');
  }
  fill(field.benchmark, start.map((one) => one.name));
  form.addEventListener('submit', (event) => event.preventDefault());
  form.addEventListener('input', (event) => {
    if (event.target === field.benchmark) {
      history.replaceState(null, '', '#' + new URLSearchParams({ benchmark: field.benchmark.value }));
      route();
      return;
    }
    page = 0;
    list();
    const index = data.id.findIndex((id) => String(id) === openId);
    if (index >= 0) { if (event.target === field.a || event.target === field.b) shownOutput = null; showDetail(index); }
    remember();
  });
  form.addEventListener('reset', (event) => {
    event.preventDefault();
    history.replaceState(null, '', '#' + new URLSearchParams(start.length > 1 ? { benchmark: start[current].name } : {}));
    route();
  });
  get('previous-page').addEventListener('click', () => { page -= 1; showPage(); remember(); });
  get('next-page').addEventListener('click', () => { page += 1; showPage(); remember(); });
  get('browser').addEventListener('keydown', (event) => {
    const by = { j: 1, k: -1 }[event.key];
    if (!by || event.ctrlKey || event.metaKey || event.altKey || event.target.matches('input, select, textarea, audio')) return;
    event.preventDefault();
    if (detail.contains(event.target)) { step(by); return; }
    const links = [...rows.querySelectorAll('a')], at = links.indexOf(document.activeElement);
    links[Math.max(0, Math.min(links.length - 1, at < 0 ? 0 : at + by))]?.focus();
  });
  addEventListener('hashchange', route);
  route();
})();
