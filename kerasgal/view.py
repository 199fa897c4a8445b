"""Looking at files of ours: slices of fields with the haloes or galaxies in them, and sheets of images.

`figure_of` draws one figure with Matplotlib. `page` and `serve` make a page for a browser with Bokeh (the extra
`kerasgal[view]`): of the libraries that do this it alone both writes a page that needs no server and serves slices of a
file as they are asked for, without a JavaScript build.
"""

import socket
from html import escape
from pathlib import Path

import numpy as np

from kerasgal import opening
from kerasgal.errors import DataError, MissingError, SettingError, first_line
from kerasgal.imageset import ImageSet
from kerasgal.simulation import Simulation

AXES = "xyz"
LARGEST = 160  # cells a side of a box that a page holds whole: 16 MB a field
SHEET = 24  # images of a sheet
POINTS = ("halos", "galaxies")
TALLEST = 480  # pixels of a picture
FRAME = 400  # pixels of the box in it, without its axes and the colour bar,
BESIDE = 130  # which take so many
WRAPPED = {"flex-wrap": "wrap"}  # below each other on a narrow screen


def fields(file):
    """Names of the fields of an open file that slices can be cut from.

    Parameters
    ----------
    file : Simulation, PredictionFile or ImageSet
        Opened by `kerasgal.open`.

    Returns
    -------
    list of str

    Examples
    --------
    >>> import kerasgal as kg
    >>> from kerasgal.view import fields
    >>> fields(kg.simulate(particles=16, boxsize=12.5, seed=1))
    ['halo_id', 'initial/delta']
    """
    names = [name for name in file.keys() if file[name].ndim == 3 and len(set(file[name].shape)) == 1]
    return [name for name in names if file[name].dtype.kind in "fiu"]


def cut(dataset, axis, place):
    """One layer of a field, as a picture has it: rows along the second of the two other axes.

    Parameters
    ----------
    dataset : HDF5 dataset or array
        (n, n, n), of which this layer alone is read.
    axis : int
        That the layer is perpendicular to.
    place : int
        Its cell.

    Returns
    -------
    array
        (n, n).

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.view import cut
    >>> cut(np.arange(8).reshape(2, 2, 2), axis=2, place=1).tolist()
    [[1, 5], [3, 7]]
    """
    index = [slice(None)] * 3
    index[axis] = place
    return np.asarray(dataset[tuple(index)]).T


def scaled(layer, name, log):
    """What is shown of a layer: labels as one of 20 colours, numbers as they are or as log10; NaN is left blank.

    Of a density contrast the logarithm is that of the density, 1 + delta.

    Parameters
    ----------
    layer : array
        (n, n).
    name : str
        Of its field.
    log : bool
        Whether to take the logarithm.

    Returns
    -------
    array
        (n, n), float32.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.view import scaled
    >>> scaled(np.array([[9.0, -1.0]]), "final/delta", log=True).tolist()
    [[1.0, nan]]
    """
    if layer.dtype.kind in "iu":
        # Neighbours have labels near each other, and so colours that are far apart.
        return np.where(layer < 0, np.nan, layer * 7 % 20).astype(np.float32)
    layer = layer.astype(np.float32)
    if not log:
        return layer
    density = 1 + layer if name.endswith("delta") else layer
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(density > 0, np.log10(density), np.nan).astype(np.float32)


def label(name, log):
    """What a colour bar says."""
    if not log:
        return name
    return f"log10(1 + {name})" if name.endswith("delta") else f"log10 {name}"


def points_of(file):
    """The haloes or galaxies of a file: what they are called, positions (objects, 3) and other columns of one number.

    Parameters
    ----------
    file : Simulation or PredictionFile
        An open one.

    Returns
    -------
    tuple or None
        (name, position, columns), or None where there are none.

    Examples
    --------
    >>> import kerasgal as kg
    >>> from kerasgal.view import points_of
    >>> name, position, columns = points_of(kg.simulate(particles=16, boxsize=12.5, seed=1))
    >>> name, sorted(columns)
    ('halos', ['count', 'mass', 'radius'])
    """
    for kind in POINTS:
        if f"{kind}/position" in file.keys():
            position = file[f"{kind}/position"][...]
            names = [name for name in file.keys() if name.startswith(kind + "/")]
            columns = {name.split("/")[1]: file[name][...] for name in names
                       if file[name].shape == (len(position),)}
            return kind, position, columns
    return None


def check_field(file, name):
    """The name of a field of a file, the first where none is given; raises SettingError for one that is not there."""
    names = fields(file)
    if not names:
        raise DataError(f"{file.path} has no field to look at: no array of (n, n, n)")
    if name is None:
        return "initial/delta" if "initial/delta" in names else names[0]
    if name not in names:
        raise SettingError(f"{file.path} has no field called {name}; it has {', '.join(names)}", value=name,
                           accepted=names)
    return name


def figure_of(path, name=None, *, axis=None, place=None, log=False):
    """A slice through a field of a file, or an image of a set, as a Matplotlib figure.

    Parameters
    ----------
    path : str or Path
        A Simulation file, a prediction or an image set.
    name : str, optional
        Of the field; of an image set the id of the image. The first without one.
    axis : {"x", "y", "z"}, optional
        That the slice is perpendicular to; z without one.
    place : int, optional
        Its cell; the middle without one.
    log : bool
        Show the logarithm; of a density contrast that of the density.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    SettingError
        For a field or a cell that is not there, an axis or a cell of an image, and the logarithm of labels.

    Examples
    --------
    >>> import kerasgal as kg
    >>> from kerasgal.view import figure_of
    >>> kg.simulate("look.h5", particles=16, boxsize=12.5, seed=1).close()
    >>> figure_of("look.h5", "initial/delta").axes[0].get_xlabel()
    'x [Mpc/h]'
    """
    from kerasgal.plotting import figure

    if axis is not None and axis not in AXES:
        raise SettingError(f"axis={axis!r}: accepted are x, y, z", value=axis, accepted=list(AXES))
    with opening.open(path) as file:
        if isinstance(file, ImageSet):
            for word, value in (("axis", axis), ("place", place)):
                if value is not None:
                    raise SettingError(f"{word}={value} is of the slice of a field, and {path} has images", value=value)
            return _image_figure(file, name, log)
        axis = axis or "z"
        name = check_field(file, name)
        place = middle(file[name].shape[0], place)
        layer = cut(file[name], AXES.index(axis), place)
        boxsize = boxsize_of(file)
    drawing, axes = figure()
    labels = layer.dtype.kind in "iu"
    if labels and log:
        raise SettingError(f"log=True: {name} has labels, of which there is no logarithm", value=log)
    image = axes.imshow(scaled(layer, name, log), origin="lower", extent=(0, boxsize, 0, boxsize),
                        cmap="tab20" if labels else "cividis", interpolation="nearest")
    across, up = (other for other in AXES if other != axis)
    axes.set(xlabel=f"{across} [Mpc/h]", ylabel=f"{up} [Mpc/h]",
             title=f"{name} at {axis} = {(place + 0.5) * boxsize / len(layer):.4g} Mpc/h")
    if not labels:
        drawing.colorbar(image, label=label(name, log))
    return drawing


def _image_figure(images, name, log):
    from kerasgal.plotting import figure

    identity = [str(value) for value in images["id"][...].astype(str)]
    if name is not None and name not in identity:
        raise SettingError(f"no image of {images.path} is called {name}", value=name)
    row = identity.index(name) if name is not None else 0
    drawing, axes = figure()
    image = axes.imshow(scaled(images.grey(row), "image", log), origin="lower", cmap="gray")
    axes.set(xlabel="x [pixels]", ylabel="y [pixels]", title=identity[row])
    drawing.colorbar(image, label=label(str(images.about()["unit"] or "flux"), log))
    return drawing


def middle(cells, place):
    """A cell along an axis; the middle one for None, and SettingError for one that is not there."""
    if place is None:
        return cells // 2
    if not 0 <= place < cells:
        raise SettingError(f"place={place}: cells run from 0 to {cells - 1}", value=place, accepted=(0, cells - 1))
    return place


def boxsize_of(file):
    """The side of the box of a Simulation or a prediction, Mpc/h."""
    boxsize = getattr(file, "boxsize", None) or getattr(file, "header", {}).get("boxsize")
    if boxsize is None:
        raise DataError(f"{file.path} does not say the side of its box")
    return float(boxsize)


def need_bokeh():
    """Raise MissingError where Bokeh is not installed."""
    try:
        import bokeh  # noqa: F401
    except ImportError as error:
        raise MissingError("a page for a browser needs Bokeh: pip install 'kerasgal[view]'; `kerasgal plot` draws "
                           "without") from error


def page(path, output, beside=None, overwrite=False):
    """Write a page with everything in it: it opens in any browser, without a server or a network.

    Parameters
    ----------
    path : str or Path
        A Simulation file, a prediction or an image set.
    output : str or Path
        HTML file to write.
    beside : str or Path, optional
        A second file of the same box, whose fields stand beside and whose haloes are drawn over both; of an image set
        the table of its scores, or the file of their maps.
    overwrite : bool
        Replace `output` if it exists.

    Raises
    ------
    DataError
        If a box has more than 160 cells a side, `output` exists, or the boxes are not of one size.

    Examples
    --------
    >>> from kerasgal.view import page
    >>> page("box.h5", "box.html", beside="haloes.h5")          # doctest: +SKIP
    """
    need_bokeh()
    from bokeh.document import Document
    from bokeh.embed import file_html
    from bokeh.resources import INLINE

    from kerasgal.files import refuse_inputs, replacing

    if Path(output).suffix not in (".html", ".htm"):
        raise SettingError(f"{output}: a page is an HTML file, accepted suffixes are .html, .htm", value=str(output))
    refuse_inputs([output], [path, beside])

    with replacing(output, overwrite) as temporary:
        document = Document()
        _fill(document, _layout(path, beside, live=False))
        temporary.write_text(file_html(document, INLINE, title=f"kerasgal view {path}"), encoding="utf-8")


def serve(path, beside=None, port=0, browser=True, started=None):
    """Serve the page at 127.0.0.1 until Ctrl-C. Only the slices that are looked at are read from the files.

    Parameters
    ----------
    path, beside
        See `page`.
    port : int
        Of the server; any free one for 0.
    browser : bool
        Open the page in the user's browser.
    started : callable, optional
        Called with the server once it runs, and its address.

    Examples
    --------
    >>> from kerasgal.view import serve
    >>> serve("box.h5")                                         # doctest: +SKIP
    """
    need_bokeh()
    from bokeh.server.server import Server

    _layout(path, beside, live=True)  # what is wrong with the files is said here, not in a browser
    port = port or free_port()
    # A browser says where its page is from; without these names Bokeh answers none that is not from "localhost".
    origins = [f"{name}:{port}" for name in ("127.0.0.1", "localhost")]
    server = Server({"/": lambda document: _fill(document, _layout(path, beside, live=True))}, port=port,
                    address="127.0.0.1", allow_websocket_origin=origins)
    server.start()
    address = f"http://127.0.0.1:{server.port}/"
    if started:
        started(server, address)
    if browser:
        server.io_loop.add_callback(server.show, "/")
    try:
        server.io_loop.start()
    except KeyboardInterrupt:
        pass
    finally:
        server.stop()


def free_port():
    """A port of this machine that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _fill(document, layout):
    """Put a layout into a Bokeh document, whose pictures shrink to a narrow screen once they are there."""
    from bokeh.models import CustomJS, Plot

    document.add_root(layout)
    shrink = CustomJS(args={"pictures": list(layout.select({"type": Plot})), "beside": BESIDE}, code="""
        const room = document.documentElement.clientWidth - 2 * 12;
        for (const one of pictures) {
          if (one.frame_width > room - beside) one.frame_width = one.frame_height = room - beside;
          if (one.width > room) one.width = room;
        }""")
    document.js_on_event("document_ready", shrink)


def _layout(path, beside, live):
    """The Bokeh layout of a file; `live`: with callbacks in Python, which a server runs, else with all data in it."""
    file = opening.open(path)
    if isinstance(file, ImageSet):
        return _sheet(file, beside, live)
    others = [opening.open(beside)] if beside is not None else []
    for other in others:
        if not np.isclose(boxsize_of(other), boxsize_of(file)):
            raise DataError(f"{beside} is of a box of {boxsize_of(other):g} Mpc/h, {path} of one of "
                            f"{boxsize_of(file):g}")
    return _box(file, others, live)


def _box(file, others, live):
    from bokeh.layouts import column, row
    from bokeh.models import CheckboxGroup, CustomJS, Div, RadioButtonGroup, Slider

    boxsize = boxsize_of(file)
    views = [_View(each, boxsize, live) for each in (file, *others)]
    cells = max(view.cells for view in views)
    slider = Slider(start=0, end=boxsize, step=boxsize / cells, value=boxsize / 2, title="slice at [Mpc/h]")
    axis = RadioButtonGroup(labels=[f"across {name}" for name in AXES], active=2)
    scale = RadioButtonGroup(labels=["linear", "log"], active=0)
    shown = CheckboxGroup(labels=["haloes or galaxies"], active=[0])
    catalogues = [points for points in (_points(each) for each in (*others, file)) if points]
    said = Div(text=catalogues[0].words if catalogues else "", styles={"max-width": "min(60em, 95vw)"})
    if catalogues:
        for view in views:
            view.overlay(catalogues[0], said)
    for view in views[1:]:  # one box: they move together
        view.picture.x_range, view.picture.y_range = views[0].picture.x_range, views[0].picture.y_range
    controls = {"slider": slider, "axis": axis, "scale": scale, "shown": shown}
    for view in views:
        view.connect(controls, catalogues[0] if catalogues else None)
    if catalogues:
        toggle = CustomJS(args={"circles": [view.circles for view in views]},
                          code="for (const one of circles) one.visible = cb_obj.active.includes(0)")
        shown.js_on_change("active", toggle)
    curves = [made for made in (_mass_functions([file, *others]), _spectra([file, *others])) if made]
    return column(row(slider, axis, scale, shown, styles=WRAPPED),
                  row(*(column(view.choice, view.picture) for view in views), styles=WRAPPED),
                  said, row(*curves, styles=WRAPPED))


class _View:
    """One picture of a file: a field of it, a slice at a time."""

    def __init__(self, file, boxsize, live):
        from bokeh.models import ColorBar, ColumnDataSource, LinearColorMapper, Select
        from bokeh.palettes import Cividis256
        from bokeh.plotting import figure

        self.file, self.boxsize, self.live, self.names = file, boxsize, live, fields(file)
        first = check_field(file, None)
        self.sizes = {name: file[name].shape[0] for name in self.names}  # fields of one file may be on several grids
        self.cells = self.sizes[first]
        largest = max(self.sizes.values())
        if not live and largest > LARGEST:
            raise DataError(f"{file.path} has {largest} cells a side; a page holds at most {LARGEST}: leave "
                            "`output` out, and slices are served, or cut a part out with `kerasgal extract`",
                            value=largest)
        self.choice = Select(title=str(file.path), value=first, options=self.names)
        self.mapper = LinearColorMapper(palette=Cividis256, nan_color="#00000000")
        self.source = ColumnDataSource({"image": [np.zeros((2, 2), np.float32)]})
        self.picture = figure(frame_width=FRAME, frame_height=FRAME, toolbar_location="below",
                              x_range=(0, boxsize), y_range=(0, boxsize), tools="pan,wheel_zoom,box_zoom,reset,save")
        self.picture.image("image", x=0, y=0, dw=boxsize, dh=boxsize, color_mapper=self.mapper, source=self.source)
        self.picture.add_layout(ColorBar(color_mapper=self.mapper), "right")
        self.circles = None
        self.show(first, 2, self.cells // 2, False)

    def show(self, name, axis, place, log):
        """Show a layer."""
        layer = scaled(cut(self.file[name], axis, place), name, log)
        self.source.data = {"image": [layer]}
        self.recolour(self.file[name].dtype.kind in "iu", layer)
        across, up = (other for other in AXES if other != AXES[axis])
        self.picture.xaxis.axis_label, self.picture.yaxis.axis_label = f"{across} [Mpc/h]", f"{up} [Mpc/h]"
        self.picture.title.text = label(name, log)

    def recolour(self, labels, layer):
        from bokeh.palettes import Category20_20, Cividis256

        self.mapper.palette = Category20_20 if labels else Cividis256
        known = layer[np.isfinite(layer)]
        low, high = np.percentile(known, [0.5, 99.5]) if len(known) and not labels else (0, 19)
        self.mapper.low, self.mapper.high = float(low), float(high if high > low else low + 1)

    def overlay(self, catalogue, said):
        """Draw the objects of a catalogue that are near the slice; a click shows one's row."""
        from bokeh.models import CustomJS, TapTool

        self.circles = self.picture.scatter("across", "up", size="size", source=catalogue.near, fill_color=None,
                                            line_color="#d1495b", line_width=1.5, nonselection_line_alpha=0.5)
        tap = CustomJS(args={"source": catalogue.near, "said": said, "kind": catalogue.kind}, code="""
            const row = source.selected.indices[0];
            if (row === undefined) return;
            const words = Object.entries(source.data).filter(([name]) => !["across", "up", "size"].includes(name))
              .map(([name, values]) => `${name.replace(/&/g, "&amp;").replace(/</g, "&lt;")} ` +
                                       Number(values[row]).toPrecision(5));
            said.text = `<b>${kind}</b>: ` + words.join(", ");""")
        self.picture.add_tools(TapTool(renderers=[self.circles], callback=tap))

    def connect(self, controls, catalogue):
        """Let the controls change what is shown."""
        if self.live:
            def change(attribute, old, new):
                axis, cells = controls["axis"].active, self.sizes[self.choice.value]
                place = min(int(controls["slider"].value / self.boxsize * cells), cells - 1)
                self.show(self.choice.value, axis, place, bool(controls["scale"].active))
                if catalogue:
                    catalogue.select(axis, controls["slider"].value)

            controls["slider"].on_change("value", change)
            controls["axis"].on_change("active", change)
            controls["scale"].on_change("active", change)
            self.choice.on_change("value", change)
            return
        from bokeh.models import ColumnDataSource, CustomJS
        from bokeh.palettes import Category20_20, Cividis256

        volumes = {name: ColumnDataSource({"values": np.ascontiguousarray(self.file[name][...]).ravel().astype(
            np.float32)}) for name in self.names}
        labels = [name for name in self.names if self.file[name].dtype.kind in "iu"]
        args = {**controls, "choice": self.choice, "volumes": volumes, "labels": labels, "sizes": self.sizes,
                "boxsize": self.boxsize, "source": self.source, "mapper": self.mapper, "picture": self.picture,
                "xaxis": self.picture.xaxis[0], "yaxis": self.picture.yaxis[0], "discrete": list(Category20_20),
                "smooth": list(Cividis256), "all": catalogue.all if catalogue else None,
                "near": catalogue.near if catalogue else None, "depth": catalogue.depth if catalogue else 0}
        change = CustomJS(args=args, code=_CHANGE)
        for widget, name in ((controls["slider"], "value"), (controls["axis"], "active"),
                             (controls["scale"], "active"), (self.choice, "value")):
            widget.js_on_change(name, change)


# What `show` and `select` do, for a page without a server
_CHANGE = """
const name = choice.value, values = volumes[name].data.values, log = scale.active === 1, label = labels.includes(name);
const n = sizes[name], at = axis.active, place = Math.min(Math.floor(slider.value / boxsize * n), n - 1);
const image = new Float32Array(n * n), stride = [n * n, n, 1], others = [0, 1, 2].filter(i => i !== at);
const delta = name.endsWith("delta"), known = [];
for (let up = 0; up < n; up++) for (let across = 0; across < n; across++) {
  let value = values[place * stride[at] + across * stride[others[0]] + up * stride[others[1]]];
  if (label) value = value < 0 ? NaN : value * 7 % 20;
  else if (log) { const density = delta ? 1 + value : value; value = density > 0 ? Math.log10(density) : NaN; }
  image[up * n + across] = value;
  if (!Number.isNaN(value)) known.push(value);
}
source.data = {image: [new source.data.image[0].constructor(image, [n, n])]};  // an array of Bokeh's, with a shape
known.sort((a, b) => a - b);
const low = label || !known.length ? 0 : known[Math.floor(0.005 * (known.length - 1))];
const high = label || !known.length ? 19 : known[Math.floor(0.995 * (known.length - 1))];
mapper.palette = label ? discrete : smooth;
mapper.low = low; mapper.high = high > low ? high : low + 1;
xaxis.axis_label = `${"xyz"[others[0]]} [Mpc/h]`; yaxis.axis_label = `${"xyz"[others[1]]} [Mpc/h]`;
picture.title.text = !log ? name : delta ? `log10(1 + ${name})` : `log10 ${name}`;
if (all !== null) {
  const rows = [], position = [all.data.x, all.data.y, all.data.z], found = {};
  for (let i = 0; i < position[0].length; i++) {
    const distance = Math.abs(position[at][i] - slider.value);
    if (Math.min(distance, boxsize - distance) <= depth) rows.push(i);
  }
  for (const column of Object.keys(near.data)) {
    const from = column === "across" ? position[others[0]] : column === "up" ? position[others[1]] : all.data[column];
    found[column] = rows.map(i => from[i]);
  }
  near.selected.indices = [];
  near.data = found;
}
"""


def _points(file):
    found = points_of(file)
    if not found or not len(found[1]):
        return None
    made = _Catalogue(*found, boxsize_of(file))
    where = "they end" if isinstance(file, Simulation) else "the file has them"
    kind = made.kind.replace("halos", "haloes")
    made.words = (f"Circles: the {kind} of {escape(str(file.path))} within {made.depth:.3g} Mpc/h of the slice, where "
                  f"{where}. A click shows the row of one.")
    return made


class _Catalogue:
    """Haloes or galaxies: all of them, and those near the slice."""

    def __init__(self, kind, position, columns, boxsize):
        from bokeh.models import ColumnDataSource

        self.kind, self.boxsize = kind, boxsize
        self.depth = boxsize / 40  # objects that are so near to a slice are drawn on it
        mass = columns.get("mass")
        size = np.full(len(position), 6.0)
        if mass is not None and mass.max(initial=0) > 0:
            size = 4 + 30 * np.cbrt(mass / mass.max())
        numbers = {name: values for name, values in columns.items() if values.dtype.kind in "fiu"}
        self.data = {**numbers, **dict(zip(AXES, np.asarray(position, np.float32).T)), "size": size}
        self.all = ColumnDataSource(self.data)
        self.near = ColumnDataSource()
        self.select(2, boxsize / 2)

    def select(self, axis, place):
        """Take the objects near a slice."""
        distance = np.abs(self.data[AXES[axis]] - place)
        near = np.minimum(distance, self.boxsize - distance) <= self.depth
        across, up = (other for other in AXES if other != AXES[axis])
        found = {name: values[near] for name, values in self.data.items()}
        self.near.selected.indices = []
        self.near.data = {**found, "across": found[across], "up": found[up]}


def mass_functions(files):
    """The mass functions of the haloes of files, in common bins.

    Parameters
    ----------
    files : list of Simulation or PredictionFile
        Open ones.

    Returns
    -------
    dict
        {path: (masses, numbers, errors)} of the bins that have haloes, Msun/h and (h/Mpc)^3 for each decade of mass,
        the errors of Poisson; files without haloes are left out.

    Examples
    --------
    >>> import kerasgal as kg
    >>> from kerasgal.view import mass_functions
    >>> (mass, number, error), = mass_functions([kg.simulate(particles=16, boxsize=12.5, seed=1)]).values()
    >>> len(mass) == len(number) > 0
    True
    """
    from kerasgal.statistics import mass_bins, mass_function

    masses = {str(file.path): (file["halos/mass"][...], boxsize_of(file)) for file in files
              if "halos/mass" in file.keys()}
    masses = {name: found for name, found in masses.items() if len(found[0])}
    if not masses:
        return {}
    edges = mass_bins(min(mass.min() for mass, _ in masses.values()), max(mass.max() for mass, _ in masses.values()))
    made = {}
    for name, (mass, boxsize) in masses.items():
        number, error = mass_function(mass, edges, boxsize**3)
        there = number > 0
        made[name] = np.sqrt(edges[1:] * edges[:-1])[there], number[there], error[there]
    return made


MASS_FUNCTION = {"title": "mass function", "xlabel": "M [Msun/h]", "ylabel": "dn/dlog10 M [(h/Mpc)^3]"}


def mass_function_figure(paths):
    """The mass functions of the haloes of files, as a Matplotlib figure.

    Parameters
    ----------
    paths : list of str or Path
        Simulation files or predictions.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    DataError
        If one has no haloes.

    Examples
    --------
    >>> import kerasgal as kg
    >>> from kerasgal.view import mass_function_figure
    >>> kg.simulate("haloes.h5", particles=16, boxsize=12.5, seed=1).close()
    >>> mass_function_figure(["haloes.h5"]).axes[0].get_xlabel()
    'M [Msun/h]'
    """
    from contextlib import ExitStack

    from kerasgal.plotting import figure

    with ExitStack() as stack:
        files = [stack.enter_context(opening.open(path)) for path in paths]
        found = mass_functions([file for file in files if not isinstance(file, ImageSet)])
    for path in paths:
        if str(Path(path)) not in found:
            raise DataError(f"{path} has no haloes: a mass function needs halos/mass")
    drawing, axes = figure()
    for name, (mass, number, error) in found.items():
        axes.errorbar(mass, number, error, marker="o", markersize=3, capsize=2, label=name)
    axes.set(xscale="log", yscale="log", **MASS_FUNCTION)
    axes.legend(frameon=False, fontsize="small")
    return drawing


def _mass_functions(files):
    """The same for a page, or None where there are no haloes."""
    from bokeh.palettes import Category10_10
    from bokeh.plotting import figure

    found = mass_functions(files)
    if not found:
        return None
    drawn = figure(width=TALLEST, height=320, x_axis_type="log", y_axis_type="log", title=MASS_FUNCTION["title"],
                   x_axis_label=MASS_FUNCTION["xlabel"], y_axis_label=MASS_FUNCTION["ylabel"], toolbar_location=None)
    for (name, (mass, number, _)), colour in zip(found.items(), Category10_10):
        drawn.line(mass, number, color=colour, legend_label=name)
    return drawn


def _spectra(files):
    """The power spectra of the densities of files, or None where there are none or it would take long."""
    from bokeh.palettes import Category10_10
    from bokeh.plotting import figure

    from kerasgal.statistics import power_spectrum

    densities = [(file, name) for file in files for name in fields(file)
                 if file[name].dtype.kind == "f" and name.endswith("delta") and file[name].shape[0] <= LARGEST]
    if not densities:
        return None
    drawn = figure(width=TALLEST, height=320, x_axis_type="log", y_axis_type="log", title="power spectrum",
                   x_axis_label="k [h/Mpc]", y_axis_label="P(k) [(Mpc/h)^3]", toolbar_location=None)
    for (file, name), colour in zip(densities, Category10_10):
        k, power, _ = power_spectrum(file[name][...], boxsize_of(file))
        drawn.line(k, power, color=colour, legend_label=f"{file.path}: {name}")
    return drawn


def _sheet(images, scores, live):
    """Images of a set in order of their likelihood ratio, or as they stand, with the ends of the order first seen.

    Beside each stands what its pixels add to the ratio, where `scores` is a file of such maps.
    """
    from bokeh.layouts import column, row
    from bokeh.models import Div, Slider

    identity = [str(value) for value in images["id"][...].astype(str)]
    ratio, maps = _ratios(scores, identity) if scores is not None else (None, None)
    order = np.arange(len(identity)) if ratio is None else np.argsort(ratio)
    if ratio is not None:
        order = order[np.isfinite(ratio[order])]  # what could not be scored has no place in it
    unscored = len(identity) - len(order)
    pages = max(1, -(-len(order) // SHEET))
    if not live and pages > 2:  # the ends of the order
        order = np.concatenate([order[:SHEET], order[-SHEET:]])
        pages = 2
    spread = None if maps is None else max(float(np.percentile(np.abs(maps(order[:SHEET])), 99)), 1e-30)
    pictures = [_picture(spread) for _ in range(min(SHEET, len(order)) if live else len(order))]

    def show(page):
        for place, (picture, drawn, mapped) in enumerate(pictures):
            number = page * SHEET + place
            picture.visible = number < len(order)
            if picture.visible:
                which = int(order[number])
                image = images.grey(which).astype(np.float32)
                drawn.data_source.data = {"image": [np.arcsinh(image / max(float(np.nanstd(image)), 1e-30))]}
                if mapped:
                    mapped.data_source.data = {"image": [maps([which])[0]]}
                words = "" if ratio is None else f" {ratio[which]:.1f} nats"
                picture.title.text = identity[which] + words

    show(0)
    words = "in the order of the set" if ratio is None else "from the least to the greatest likelihood ratio"
    said = f"{len(identity)} images, {words}"
    if unscored:
        said += f", without {unscored} that have none"
    if not live and len(identity) - unscored > 2 * SHEET:
        said += f": the first and the last {SHEET}"
    bands = escape(", ".join(images.bands))
    said += f"; arcsinh of the flux{', the mean of ' + bands if len(images.bands) > 1 else ''}."
    if maps is not None:
        said += (" Beside each what its pixels, as the networks saw them, add to the ratio: red for, blue against "
                 f"being real, full at {spread:.2g} nats a pixel.")
    grid = row(*(picture for picture, *_ in pictures), styles=WRAPPED)
    if not live or pages == 1:
        return column(Div(text=said), grid)
    slider = Slider(start=0, end=pages - 1, step=1, value=0, title="sheet")
    slider.on_change("value", lambda attribute, old, new: show(new))
    return column(Div(text=said), slider, grid)


def _picture(spread):
    """An empty picture of an image, and with a `spread` of its colours of the map beside; and what draws both."""
    from bokeh.models import LinearColorMapper
    from bokeh.palettes import Blues256, Reds256, diverging_palette
    from bokeh.plotting import figure

    picture = figure(width=150 if spread is None else 300, height=165, toolbar_location=None, match_aspect=True,
                     tools="")
    picture.axis.visible = picture.grid.visible = False
    picture.title.text_font_size = "9px"
    empty = [np.zeros((2, 2))]
    drawn = picture.image(empty, x=0, y=0, dw=1, dh=1, palette="Greys256")
    if spread is None:
        return picture, drawn, None
    colours = LinearColorMapper(palette=diverging_palette(Blues256, Reds256, 255), low=-spread, high=spread)
    return picture, drawn, picture.image(empty, x=1.05, y=0, dw=1, dh=1, color_mapper=colours)


def _ratios(scores, identity):
    """The likelihood ratio of each image, and where there are maps a function from rows to those of the ratio.

    scores: the table of `kerasgal morph score`, or the file of its --maps. Raises DataError where an image has none.
    """
    from astropy.table import Table

    if Path(scores).suffix in (".h5", ".hdf5"):
        with opening.open(scores) as file:
            if "log_p_real" in file.keys():
                return _mapped(scores, file, identity)
    try:  # our header of a CSV stands in comments
        table = Table.read(scores, **({"comment": "#"} if Path(scores).suffix == ".csv" else {}))
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever a format that is none of a table raises
        raise DataError(f"{scores} cannot be read as a table: {first_line(error)}") from None
    missing = {"id", "llr"} - set(table.colnames)
    if missing:
        raise DataError(f"{scores} has no column {' and '.join(sorted(missing))}: give the table of `kerasgal morph "
                        "score`")
    known = {str(name): float(value) for name, value in zip(table["id"], table["llr"])}
    _check_all(scores, known, identity)
    return np.array([known[name] for name in identity]), None


def _mapped(path, file, identity):
    """The same of an open file of maps."""
    ratio = file["log_p_real"][...] - file["log_p_archetype"][...]
    known = {str(name): row for row, name in enumerate(file["id"][...].astype(str))}
    _check_all(path, known, identity)
    rows = np.array([known[name] for name in identity])
    return ratio.sum(axis=(1, 2), dtype=float)[rows], lambda which: ratio[rows[np.asarray(which)]]


def _check_all(path, known, identity):
    """Raise DataError where an image is not known to a file of scores."""
    lost = [name for name in identity if name not in known]
    if lost:
        raise DataError(f"{path} has no score of {len(lost)} of {len(identity)} images, such as {lost[0]}")
