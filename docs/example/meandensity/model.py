"""The network: keras alone, nothing of ours, so that every Keras backend runs it."""

import keras
from keras import layers


def cnn(filters=16):
    """Cubes of initial density, (batch, x, y, z, 1), to the logarithm of their final mean density, (batch, 1)."""
    x = inputs = keras.Input((None, None, None, 1), name="delta")
    for width in (filters, 2 * filters):
        x = layers.Conv3D(width, 3, padding="same", activation="leaky_relu")(x)
    x = layers.GlobalAveragePooling3D()(x)
    return keras.Model(inputs, layers.Dense(1, dtype="float32", name="log_density")(x), name="meandensity")
