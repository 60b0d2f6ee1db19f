"""Numbers the columns of the random numbers of one view."""

# Columns of the random numbers of one view, all uniform in [0, 1):
#   0 to 9    the crop's share of the area, for each of ten attempts at a crop (torchvision makes as many)
#   10 to 19  the logarithm of the crop's ratio of width to height, for each attempt
#   TOP, LEFT position of the crop
#   FLIP, JITTER, GRAYSCALE, BLUR, SOLARIZE
#             the operation is done if the number is below its probability
#   SIGMA     standard deviation of the blur
#   FACTORS   strength of brightness, contrast, saturation and hue
#   ORDER     the four parts of the colour jitter are done in the order that sorts these numbers
# Those from COLUMNS on are drawn only if a view needs them:
#   ROTATE, NOISE
#             the operation is done if the number is below its probability
#   TURNS     number of quarter turns
#   NOISE_STD standard deviation of the noise
#   NOISE_KEY the upper and the lower half of a key of 32 bits, from which the noise of each pixel is computed
#   CHANNELS  from here on, three for each channel: the strengths of its brightness and contrast, if the channels are
#             not red, green and blue; and whether it is dropped
#   RANDAUGMENT
#             from here on, five for each operation of RandAugment on images of three channels: which one it is, whether
#             it is done, its magnitude, its direction and its interpolation
ATTEMPTS = 10
TOP, LEFT, FLIP, JITTER, GRAYSCALE, BLUR, SIGMA, SOLARIZE = range(2 * ATTEMPTS, 2 * ATTEMPTS + 8)
FACTORS = slice(SOLARIZE + 1, SOLARIZE + 5)
ORDER = slice(SOLARIZE + 5, SOLARIZE + 9)
COLUMNS = ORDER.stop
ROTATE, TURNS, NOISE, NOISE_STD = range(COLUMNS, COLUMNS + 4)
NOISE_KEY = slice(COLUMNS + 4, COLUMNS + 6)
CHANNELS = NOISE_KEY.stop
COLUMNS_OF_A_CHANNEL = 3
RANDAUGMENT = CHANNELS + 3 * COLUMNS_OF_A_CHANNEL
COLUMNS_OF_AN_OPERATION = 5
