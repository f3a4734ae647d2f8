
// The question list: filters, two models side by side, one question in full with its clip.
// Every text of the data enters the page by textContent; the state lives in the address after '#'.
(() => {
  const PAGE_SIZE = 50, LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', NONE = '-', OTHER = '?';
  const FILTERS = ['a', 'b', 'scorer', 'show', 'task', 'sub', 'level', 'where', 'text'];
  const WRONG = { other: 'another choice', choice: 'no single choice', none: 'no answer', cut: 'cut off' };
  const get = (id) => document.getElementById(id);
  const form = get('filters'), rows = get('rows'), detail = get('detail'), field = form.elements;
  const start = JSON.parse(get('start').textContent).benchmarks;
  const questions = new Map(), outputs = new Map(), waiting = new Map();
  let current = null, data = null, view = [], page = 0, openId = null, shownOutput = null, rangeWorks = null, plays = false, unknown = [];

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
    // A link names the pair, whatever the page would show first.
    for (const name of FILTERS) if (field[name].value !== defaultOf(name) || ['a', 'b'].includes(name)) params.set(name, field[name].value);
    if (page) params.set('page', String(page + 1));
    if (id !== null) params.set('id', id);
    return '#' + params;
  }
  const remember = () => history.replaceState(null, '', stateWith(openId));
  // What a person opens is a step that Back takes back.
  const stepTo = () => { if (stateWith(openId) !== location.hash) history.pushState(null, '', stateWith(openId)); };
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

  // All that filters ask of a question, looked up once a list: 10,000 questions in some milliseconds.
  function matcher() {
    const [a, b] = [evaluation('a'), evaluation('b')], scorer = data.scorers.indexOf(field.scorer.value);
    const marksOf = (one) => (one && scorer >= 0 ? one.marks[scorer] : NONE.repeat(data.id.length));
    const [ones, twos] = [marksOf(a), marksOf(b)], text = field.text.value.trim().toLowerCase(), show = field.show.value;
    const wanted = [['task', 'task'], ['sub', 'sub_category'], ['level', 'difficulty']].filter(([name]) => field[name].value).map(([name, column]) => [data[column].codes, data[column].values.indexOf(field[name].value)]);
    const said = field.where.value && b ? outputs.get(current + '/' + data.evaluations.indexOf(b))?.completions : null;
    const hay = field.where.value ? (index) => String(said?.[index] ?? '').toLowerCase() : (index) => haystack()[index];
    const shows = {
      right: (index) => twos[index] === '1', wrong: (index) => twos[index] === '0', gained: (index) => ones[index] + twos[index] === '01', lost: (index) => ones[index] + twos[index] === '10',
      flipped: (index) => ones[index] !== twos[index], different: (index) => a?.picks[index] !== b?.picks[index], unparsed: (index) => b?.parsed[index] === '0', missed: (index) => missed()[index] === 1,
      ...Object.fromEntries(Object.keys(WRONG).map((kind) => [kind, (index) => twos[index] === '0' && whyWrong(b, index) === kind])),
    }[show] ?? (() => true);
    return { twos, matches: (index) => shows(index) && wanted.every(([codes, code]) => codes[index] === code) && (!text || hay(index).includes(text)) };
  }
  const haystack = () => data.haystack ??= data.id.map((id, index) => [data.question[index], id, ...data.choices[index]].join('\n').toLowerCase());
  function whyWrong(one, index) {
    if (one?.finished[index] === '0') return 'cut';
    return { [NONE]: 'none', [OTHER]: 'choice' }[one?.picks[index]] ?? 'other';
  }
  // Questions that no model gets right, controls left out.
  function missed() {
    const scorer = data.scorers.indexOf(field.scorer.value), models = data.evaluations.filter((one) => !one.control);
    return (data.missed ??= {})[scorer] ??= data.id.map((_, index) => (models.length && models.every((one) => one.marks[scorer]?.[index] === '0') ? 1 : 0));
  }
  function list() {
    const { twos, matches } = matcher();
    view = [];
    for (let index = 0; index < data.id.length; index++) if (matches(index)) view.push(index);
    page = Math.max(0, Math.min(page, Math.ceil(view.length / PAGE_SIZE) - 1));
    let numRight = 0;
    for (const index of view) numRight += twos[index] === '1' ? 1 : 0;
    const share = view.length && !['right', 'wrong', 'gained', 'lost', 'missed', ...Object.keys(WRONG)].includes(field.show.value) ? `; the second is right on ${(100 * numRight / view.length).toFixed(1)} %` : '';
    const missing = unknown.length ? ` No model is called ${unknown.join(' or ')} here: the usual pair is shown.` : '';
    get('count').textContent = `${view.length} of ${data.id.length} questions${share}.${missing}`;
    showPage();
    showWhy(twos);
  }
  // Why the second is wrong, by task; each number leads to its questions.
  function showWhy(twos) {
    const key = [current, field.a.value, field.b.value, field.scorer.value].join('\n');
    if (get('why').dataset.of === key) return;
    get('why').dataset.of = key;
    const b = evaluation('b'), tasks = data.task.values, counts = new Map(Object.keys(WRONG).map((kind) => [kind, new Array(tasks.length).fill(0)]));
    for (let index = 0; index < data.id.length; index++) if (twos[index] === '0') counts.get(whyWrong(b, index))[data.task.codes[index]] += 1;
    const cell = (kind, task, number) => make('td', { class: 'number' }, number ? make('a', { href: '#' + new URLSearchParams({ ...(start.length > 1 ? { benchmark: start[current].name } : {}), a: field.a.value, b: field.b.value, scorer: field.scorer.value, show: kind, ...(task === null ? {} : { task }) }), text: String(number) }) : '0');
    const sum = (numbers) => numbers.reduce((one, other) => one + other, 0);
    const all = sum([...counts.values()].map(sum)), everywhere = sum(missed());
    get('why').replaceChildren(
      make('summary', { text: `Why ${b?.label ?? 'the second'} is wrong on ${all}` }),
      make('table', {}, make('thead', {}, make('tr', {}, make('td'), ...tasks.map((task) => make('th', { scope: 'col', class: 'number', text: task })), make('th', { scope: 'col', class: 'number', text: 'all' }))),
        make('tbody', {}, ...[...counts].map(([kind, numbers]) => make('tr', {}, make('th', { scope: 'row', text: WRONG[kind] }), ...numbers.map((number, place) => cell(kind, tasks[place], number)), cell(kind, null, sum(numbers)))))),
      make('p', { class: 'small' }, cell('missed', null, everywhere).firstChild, ' questions are missed by every model.'));
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
      const cells = [a, b].map((one) => make('td', {}, make('span', { class: cssOf(mark(one, index)), text: withSign(mark(one, index)) + inWords(mark(one, index)) }), make('span', { class: 'muted', text: ' ' + letterOf(one, index) })));
      const about = make('span', { class: 'interval', dir: 'auto', text: `${data.id[index]} \u00b7 ${valueOf('sub_category', index)}` });
      const row = make('tr', {}, make('td', {}, link, about), make('td', { text: valueOf('task', index) }), ...cells);
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

  function letterOf(one, index) {
    const pick = one?.picks[index] ?? NONE;
    return pick === NONE ? '\u2013' : pick === OTHER ? '?' : LETTERS[parseInt(pick, 36)];
  }

  function open(index, takesFocus) {
    openId = String(data.id[index]);
    const position = view.indexOf(index);
    if (position >= 0 && Math.floor(position / PAGE_SIZE) !== page) { page = Math.floor(position / PAGE_SIZE); showPage(); }
    markCurrent();
    showDetail(index);
    if (takesFocus) stepTo(); else remember();
    if (takesFocus) detail.focus({ preventScroll: true });
    if (matchMedia('(max-width: 52rem)').matches) detail.scrollIntoView();
    else { detail.scrollTop = 0; rows.querySelector('[aria-current]')?.scrollIntoView({ block: 'nearest' }); }
  }
  function step(by) {
    const index = data.id.findIndex((id) => String(id) === openId), position = view.indexOf(index);
    const next = view[position < 0 ? 0 : position + by];
    if (next !== undefined) { plays = true; open(next, true); }
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
      ...[spectrogram(index)].filter(Boolean), player(index),
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

  // The picture follows the player: a click seeks, a line shows where it is.
  function spectrogram(index) {
    const address = data.spectrograms?.[index];
    if (!address) return null;
    const image = make('img', { src: address, alt: 'Spectrogram of the clip, 0 to 8 kHz, low sounds below', width: '400', height: '96' }), here = make('progress', { max: '1', value: '0', 'aria-label': 'Position in the clip' });
    const box = make('div', { class: 'spectrogram' }, image, here);
    box.addEventListener('click', (event) => {
      const audio = detail.querySelector('audio'), share = event.offsetX / box.clientWidth;
      if (!audio) return;
      const seek = () => { audio.currentTime = share * audio.duration; };
      if (audio.duration) { seek(); return; }
      audio.addEventListener('loadedmetadata', seek, { once: true });
      audio.preload = 'metadata';
      audio.load();
    });
    return box;
  }
  function player(index) {
    const address = data.audio[index];
    if (!address) return make('p', { class: 'small', text: 'No audio file in this report.' });
    const audio = make('audio', { controls: '', preload: 'none', 'aria-label': 'Clip of this question' });
    audio.addEventListener('timeupdate', () => { const here = detail.querySelector('progress'); if (here && audio.duration) here.value = audio.currentTime / audio.duration; });
    setSource(audio, address).then(() => { if (plays && field.autoplay.checked) audio.play().catch(() => {}); plays = false; });
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
    unknown = [];
    for (const name of FILTERS) {
      const value = params.get(name) ?? defaultOf(name);
      field[name].value = value;
      if (field[name].selectedIndex !== -1) continue;
      field[name].value = defaultOf(name);
      if (name === 'a' || name === 'b') unknown.push(value);
    }
    await readOutputs();
    page = Math.max(0, (Number(params.get('page')) || 1) - 1);
    openId = params.get('id');
    list();
    const index = data.id.findIndex((id) => String(id) === openId);
    if (index >= 0) open(index, false);
    else detail.replaceChildren(make('p', { class: 'muted', text: openId === null ? 'Choose a question from the list.' : 'There is no question with this id.' }));
    performance.mark('ready');
    document.documentElement.dataset.ready = String(current);
  }
  // Searching in what was said needs the second model's outputs.
  async function readOutputs() {
    const b = field.where.value ? evaluation('b') : null, number = data.evaluations.indexOf(b);
    if (b) await load(`${start[current].folder}/${String(number).padStart(3, '0')}.js`, () => outputs.has(current + '/' + number));
  }
  // The filtered list as CSV; a cell that a spreadsheet would run gets an apostrophe.
  function exportList() {
    const [a, b] = [evaluation('a'), evaluation('b')], quote = (value) => '"' + String(value ?? '').replace(/^[=+\-@\t\r]/, "'$&").replaceAll('"', '""') + '"';
    const rowOf = (index) => [data.id[index], valueOf('task', index), valueOf('sub_category', index), valueOf('difficulty', index), data.question[index], data.answer[index], ...[a, b].flatMap((one) => [data.choices[index][parseInt(one?.picks[index], 36)] ?? '', inWords(mark(one, index))])];
    const heads = ['id', 'task', 'sub_category', 'difficulty', 'question', 'answer', `${a?.label} chose`, `${a?.label} is`, `${b?.label} chose`, `${b?.label} is`];
    const text = [heads, ...view.map(rowOf)].map((row) => row.map(quote).join(',')).join('\r\n') + '\r\n';
    const link = make('a', { href: URL.createObjectURL(new Blob([text], { type: 'text/csv' })), download: 'questions.csv' });
    document.body.append(link);
    link.click();
    link.remove();
  }
  function prepareFilters() {
    field.benchmark.value = start[current].name;
    const names = data.evaluations.map((one) => one.label);
    fill(field.a, names); fill(field.b, names); fill(field.scorer, data.scorers);
    fill(field.task, data.task.values, 'all'); fill(field.sub, data.sub_category.values, 'all'); fill(field.level, data.difficulty.values, 'all');
  }
  fill(field.benchmark, start.map((one) => one.name));
  form.addEventListener('submit', (event) => event.preventDefault());
  form.addEventListener('input', async (event) => {
    if (event.target === field.autoplay) return;
    if (event.target === field.benchmark) {
      history.replaceState(null, '', '#' + new URLSearchParams({ benchmark: field.benchmark.value }));
      route();
      return;
    }
    page = 0;
    unknown = [];
    await readOutputs();
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
  get('export').addEventListener('click', exportList);
  addEventListener('hashchange', route);
  route();
})();
