// Animates a picture in the browser by the graphs that lie beside this file, with ONNX Runtime Web.
// A picture is a Uint8Array of R x R x 3 numbers, rows of pixels, RGB; R is the model's resolution.

export class Animator {
  // Opens the graphs. The graphics processor is tried first (WebGPU), then WebAssembly on the processor.
  static async open(runtime) {
    const base = new URL(runtime, import.meta.url);
    const ort = await import(new URL("ort.webgpu.min.mjs", base));
    ort.env.wasm.wasmPaths = base.href;
    ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
    ort.env.logLevel = "error";
    const model = await (await got("model.json")).json();
    const files = {};
    for (const name of Object.keys(model.graphs)) {
      files[name] = new Uint8Array(await (await got(model.graphs[name].file)).arrayBuffer());
    }
    const animator = new Animator(ort, model);
    const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
    animator.why = adapter ? "" : "this browser has no WebGPU";
    for (const backend of adapter ? ["webgpu", "wasm"] : ["wasm"]) {
      try {
        for (const [name, file] of Object.entries(files)) {
          animator.sessions[name] = await ort.InferenceSession.create(file, { executionProviders: [backend] });
        }
        animator.backend = backend;
        await animator.source(new Uint8Array(3 * model.resolution ** 2));
        await animator.render(await animator.motion(new Uint8Array(3 * model.resolution ** 2)));
        return animator;
      } catch (error) {
        if (backend === "wasm") throw error;
        animator.why = `WebGPU cannot run this model (${error.message ?? error})`;
      }
    }
  }

  constructor(ort, model) {
    Object.assign(this, { ort, model, resolution: model.resolution, sessions: {}, backend: "", why: "" });
    this.face = this.encoded = null;
  }

  // Encodes the picture that is to move; render() then draws that face.
  async source(pixels) {
    this.face = this.encoded = await this.#run("source", { picture: this.#picture(pixels) });
  }

  // Draws another person from now on, by what is added to the source's identity coefficients; null: the source itself.
  async change(step) {
    this.face = this.encoded;
    if (!step) return;
    const { image, identity, own } = this.encoded;
    const wanted = new this.ort.Tensor("float32", identity.data.map((value, i) => value + step[i]), identity.dims);
    const made = Object.values(await this.#run("person", { image, identity, own, wanted }));
    this.face = Object.fromEntries(this.model.graphs.source.outputs.map((name, i) => [name, made[i]]));
  }

  // The source's own motion coefficients.
  get own() {
    return this.face.own.data;
  }

  // Reads the motion coefficients of a picture: a Float32Array.
  async motion(pixels) {
    return (await this.#run("motion", { frames: this.#picture(pixels) })).motion.data;
  }

  // Draws the source under motion coefficients.
  async render(motion) {
    const given = new this.ort.Tensor("float32", Float32Array.from(motion), [1, motion.length]);
    return (await this.#run("render", { motion: given, ...this.face })).frames.data;
  }

  #picture(pixels) {
    return new this.ort.Tensor("uint8", pixels, [1, this.resolution, this.resolution, 3]);
  }

  async #run(name, inputs) {
    const { outputs } = this.model.graphs[name];
    const made = await this.sessions[name].run(inputs);
    return Object.fromEntries(outputs.map((output) => [output, made[output]]));
  }
}

async function got(file) {
  const answer = await fetch(new URL(file, import.meta.url));
  if (!answer.ok) throw new Error(`${file} is missing (${answer.status}): upload the whole folder`);
  return answer;
}

// A square part of a picture or video that the user chooses by dragging and zooming, drawn on a canvas.
class Square {
  constructor(name, changed) {
    this.canvas = document.getElementById(name);
    this.pen = this.canvas.getContext("2d", { willReadFrequently: true });
    this.zoom = document.getElementById(`${name}-zoom`);
    this.image = null;
    this.changed = changed;
    this.centre = [0.5, 0.5];
    this.zoom.oninput = () => this.moved();
    this.canvas.onwheel = (event) => {
      event.preventDefault();
      this.zoom.valueAsNumber *= Math.exp(-event.deltaY / 500);
      this.moved();
    };
    this.canvas.onpointerdown = (event) => this.canvas.setPointerCapture(event.pointerId);
    this.canvas.onpointermove = (event) => {
      if (!event.buttons || !this.image) return;
      const { side, width, height } = this.part();
      const scale = side / this.canvas.clientWidth;
      this.centre[0] -= (event.movementX * scale) / width;
      this.centre[1] -= (event.movementY * scale) / height;
      this.moved();
    };
  }

  show(image) {
    this.image = image;
    this.centre = [0.5, 0.5];
    this.zoom.value = 1;
    this.moved();
  }

  moved() {
    this.draw();
    this.changed();
  }

  // The part that is used, in pixels of the image, which it never leaves.
  part() {
    const width = this.image.videoWidth || this.image.width;
    const height = this.image.videoHeight || this.image.height;
    const side = Math.min(width, height) / this.zoom.valueAsNumber;
    const inside = (centre, size) => Math.min(Math.max(centre * size, side / 2), size - side / 2) / size;
    this.centre = [inside(this.centre[0], width), inside(this.centre[1], height)];
    return { side, width, height, x: this.centre[0] * width - side / 2, y: this.centre[1] * height - side / 2 };
  }

  draw() {
    if (!this.image) return;
    const { side, x, y } = this.part();
    const size = this.canvas.width;
    this.pen.imageSmoothingQuality = "high";
    this.pen.drawImage(this.image, x, y, side, side, 0, 0, size, size);
  }

  // The picture as the graphs take it.
  pixels() {
    const { data } = this.pen.getImageData(0, 0, this.canvas.width, this.canvas.height);
    const rgb = new Uint8Array((data.length / 4) * 3);
    for (let from = 0, to = 0; from < data.length; from += 4) {
      rgb[to++] = data[from];
      rgb[to++] = data[from + 1];
      rgb[to++] = data[from + 2];
    }
    return rgb;
  }
}

// Frames of a video or camera, or of the example, whose pictures lie below each other in one file.
class Driver {
  constructor(square, started, failed) {
    this.square = square;
    this.started = started; // called when the first picture of another driver is there
    this.failed = failed;
    this.video = Object.assign(document.createElement("video"), { muted: true, loop: true, playsInline: true });
    this.strip = null;
    this.paused = false;
  }

  stop() {
    for (const track of this.video.srcObject?.getTracks() ?? []) track.stop();
    this.video.pause();
    this.video.srcObject = null;
    if (this.video.src) URL.revokeObjectURL(this.video.src);
    this.video.removeAttribute("src");
    this.strip = null;
  }

  example(strip) {
    this.stop();
    this.strip = Object.assign(document.createElement("canvas"), { width: strip.width, height: strip.width });
    this.strip.pictures = strip;
    this.strip.began = performance.now();
    this.#show(this.strip);
  }

  #show(image) {
    this.paused = false;
    this.next();
    this.square.show(image);
    this.started();
  }

  async play(file) {
    this.stop();
    this.video.src = URL.createObjectURL(file);
    await this.#begin(`${file.name} cannot be played by this browser`);
  }

  async webcam() {
    this.stop();
    try {
      if (!navigator.mediaDevices) throw new Error("the page must come from https or from this machine");
      this.video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } });
    } catch (error) {
      return this.failed(`No webcam: ${error.message}.`);
    }
    await this.#begin("The webcam gives no pictures");
  }

  async #begin(wrong) {
    try {
      await this.video.play();
      this.#show(this.video);
    } catch (error) {
      this.failed(`${wrong} (${error.message}).`);
    }
  }

  // Draws the newest picture; frames that came in the meantime are dropped.
  next() {
    if (this.strip && !this.paused) {
      const { pictures, width, began } = this.strip;
      const frame = Math.floor(((performance.now() - began) / 1000) * 12.5) % (pictures.height / width);
      this.strip.getContext("2d").drawImage(pictures, 0, frame * width, width, width, 0, 0, width, width);
    }
    this.square.draw();
  }

  pause(paused) {
    this.paused = paused;
    if (this.video.srcObject || this.video.src) paused ? this.video.pause() : this.video.play();
  }
}

function picture(address) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error("the file is no picture that this browser can show"));
    image.src = address;
  });
}

async function main() {
  const by = (name) => document.getElementById(name);
  const tell = (words, wrong = false) => {
    by("told").textContent = words;
    by("told").className = wrong ? "wrong" : "";
  };
  let animator;
  try {
    animator = await Animator.open(document.body.dataset.runtime);
  } catch (error) {
    return tell(`The model cannot be loaded: ${error.message ?? error}.`, true);
  }
  const state = { frames: 0, encode: true, person: false, changed: true, reference: null, error: "" };
  const failed = (words) => (state.error = words);
  const source = new Square("source", () => (state.encode = state.changed = true));
  const start = () => (state.reference = state.changed = true);
  const paused = () => by("pause").setAttribute("aria-pressed", driver.paused);
  const started = () => (start(), paused());
  const driver = new Driver(new Square("driver", () => (state.changed = true)), started, failed);
  const movements = sliders(animator, "motion", by("motion"), () => (state.changed = true));
  const people = animator.sessions.person
    ? sliders(animator, "identity", by("identity"), () => (state.person = state.changed = true))
    : [];
  by("undo").onclick = () => {
    for (const { range } of [...movements, ...people]) range.value = 0;
    state.person = state.changed = true;
  };
  by("start").onclick = by("relative").onchange = start;
  by("pause").onclick = () => {
    driver.pause(!driver.paused);
    paused();
  };
  const strip = await picture("driver.jpg");
  const begin = (doing) => ((state.error = ""), doing());
  by("example").onclick = () => begin(() => driver.example(strip));
  by("webcam").onclick = () => begin(() => driver.webcam());
  by("driver-file").onchange = (event) => event.target.files[0] && begin(() => driver.play(event.target.files[0]));
  by("source-file").onchange = async (event) => {
    const [file] = event.target.files;
    if (!file) return;
    const address = URL.createObjectURL(file);
    await picture(address).then(
      (image) => begin(() => source.show(image)),
      (error) => failed(`${file.name}: ${error.message}.`)
    );
    URL.revokeObjectURL(address);
  };
  source.show(await picture("source.jpg"));
  driver.example(strip);

  const pen = by("result").getContext("2d");
  const shown = pen.createImageData(animator.resolution, animator.resolution);
  shown.data.fill(255);
  const times = [];
  self.sfdkit = { animator, state, source, driver };
  for (;;) {
    await new Promise(requestAnimationFrame);
    const moving = !driver.paused && driver.square.image;
    if (moving || state.changed) {
      state.changed = false;
      try {
        await step();
      } catch (error) {
        failed(`A picture could not be made: ${error.message ?? error}.`);
      }
    }
    if (state.error) tell(state.error, true);
    else tell(words(moving));
  }

  async function step() {
    const began = performance.now();
    driver.next();
    if (state.encode) {
      state.encode = false;
      await animator.source(source.pixels());
      state.person = true;
    }
    if (state.person) {
      state.person = false;
      await animator.change(people.some(({ range }) => range.valueAsNumber) ? sum(people) : null);
    }
    const motion = Float32Array.from(await animator.motion(driver.square.pixels()));
    if (state.reference === true) state.reference = motion.slice();
    if (by("relative").checked) motion.forEach((value, i) => (motion[i] = animator.own[i] + value - state.reference[i]));
    if (movements.length) sum(movements).forEach((value, i) => (motion[i] += value));
    const frame = await animator.render(motion);
    for (let from = 0, to = 0; from < frame.length; to++) {
      shown.data[to++] = frame[from++];
      shown.data[to++] = frame[from++];
      shown.data[to++] = frame[from++];
    }
    pen.putImageData(shown, 0, 0);
    state.frames += 1;
    times.push([performance.now(), performance.now() - began]);
    if (times.length > 30) times.shift();
  }

  function words(moving) {
    const where = animator.backend === "webgpu" ? "on the graphics processor" : `on the processor, as ${animator.why}`;
    if (times.length < 2) return `Ready, ${where}.`;
    const spent = times.reduce((sum, [, each]) => sum + each, 0) / times.length;
    const rate = ((times.length - 1) * 1000) / (times.at(-1)[0] - times[0][0]);
    const pace = moving ? `${rate.toFixed(1)} frames per second, ` : "";
    return `${pace}${spent.toFixed(0)} ms for a frame, ${where}.`;
  }
}

// Makes a slider for each named direction of a block of the code, in standard deviations.
function sliders(animator, block, place, changed) {
  const { std = [], directions = {} } = animator.model.axes?.[block] ?? {};
  place.hidden = !Object.keys(directions).length;
  const least = 1e-6 * Math.max(...std); // what varies less says nothing
  return Object.entries(directions).map(([name, { vector }]) => {
    const label = document.createElement("label");
    const given = { type: "range", min: -3, max: 3, step: 0.05, value: 0, name };
    const range = Object.assign(document.createElement("input"), given);
    range.oninput = changed;
    label.append(name.replaceAll("_", " "), range);
    place.lastElementChild.append(label);
    const length = Math.hypot(...vector.map((value, i) => (std[i] > least ? value / std[i] : 0)));
    return { range, vector: vector.map((value) => value / length) };
  });
}

// What sliders add to the coefficients together.
function sum(sliders) {
  return sliders[0].vector.map((_, i) => sliders.reduce((all, { range, vector }) => all + range.valueAsNumber * vector[i], 0));
}

if (document.body.dataset.runtime) main(); // else another page uses Animator
